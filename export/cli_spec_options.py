"""Command-line options for spec fields that a checkpoint does not hold."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import UsageError
from model.families.assumptions import listing
from runtime.cli.console import printable
from runtime.cli.spec_options import add_spec_options, spec_arguments

if TYPE_CHECKING:
    from model.live.builder import Builder
    from model.live.source import AnyModel


def add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group of options."""
    add_spec_options(parser)
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the code that builds a live model."""
    code = parser.add_argument_group("live model, of which nothing has to be assumed")
    code.add_argument(
        "--model",
        dest="model_code",
        metavar="CODE:NAME",
        help="package.module:name or file.py:name, code that is RUN to build the model; the "
        "weights are loaded into it",
    )
    code.add_argument(
        "--model-args", metavar="JSON", help='arguments of NAME, like {"num_classes": 3}'
    )


def model_builder(args: argparse.Namespace) -> Builder | None:
    """The code of `--model`, which has not run yet; None without that option.

    Raises:
        UsageError: a name or arguments of another form.
    """
    if args.model_code is None:
        if args.model_args is not None:
            raise UsageError("--model-args: they are the arguments of --model; add it")
        return None
    from model.live.builder import Builder

    return Builder.parse(args.model_code, args.model_args)


def model_arguments(args: argparse.Namespace, weights: Path | None) -> list[str | Path]:
    """The weights of a command, its code and its spec options, for the next one."""
    options = {"--model": args.model_code, "--model-args": args.model_args}
    given = [part for name, value in options.items() if value for part in (name, value)]
    return [*([] if weights is None else [weights]), *given, *spec_arguments(args)]


def print_reading(checkpoint: AnyModel) -> None:
    """Print each note about the files that were read, and each assumption, on its own line."""
    if checkpoint.taken:
        print(f"weights: {printable(checkpoint.taken)}")
    for note in checkpoint.notes:
        print(printable(note))
    for line in listing(checkpoint.assumptions):
        print(f"assumed: {printable(line)}")
