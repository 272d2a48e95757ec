"""Command-line options for spec fields that a checkpoint does not hold."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import UsageError
from model.families.assumptions import listing
from runtime.cli.console import fraction, printable, whole_number

if TYPE_CHECKING:
    from model.checkpoint import SpecOptions
    from model.live.builder import Builder
    from model.live.source import AnyModel


def add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group of options."""
    group = parser.add_argument_group("model spec, where the checkpoint does not define it")
    group.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="the framework's own configuration; default: config.yaml in the folder of the weights",
    )
    group.add_argument(
        "--short-side", type=whole_number, metavar="PX", help="shorter side after the resize"
    )
    group.add_argument(
        "--long-side", type=whole_number, metavar="PX", help="maximum longer side after the resize"
    )
    group.add_argument("--score-threshold", type=fraction, metavar="P", help="minimum score")
    group.add_argument("--nms-iou", type=fraction, metavar="IOU", help="IoU limit of the final NMS")
    group.add_argument("--detections", type=whole_number, metavar="D", help="maximum per image")
    group.add_argument(
        "--candidates", type=whole_number, metavar="K", help="maximum boxes before the final NMS"
    )
    group.add_argument("--norm-eps", type=float, metavar="EPS", help="BatchNorm epsilon")
    group.add_argument("--names", help="class names: a file with one per line, or a,b,c")
    group.add_argument("--spec", type=Path, help="JSON file with any fields of the spec")
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the code that builds a live model."""
    code = parser.add_argument_group("live model, of which nothing has to be assumed")
    code.add_argument(
        "--model",
        dest="model_code",
        metavar="CODE:NAME",
        help="package.module:name or file.py:name, which is imported AND RUN to build the model; "
        "the weights are loaded into it",
    )
    code.add_argument(
        "--model-args", metavar="JSON", help='arguments of NAME, like {"num_classes": 3}'
    )


def spec_options(args: argparse.Namespace) -> SpecOptions:
    """The spec fields that the user set.

    Raises:
        UsageError: names or a spec file that cannot be read.
    """
    from model.checkpoint import SpecOptions, read_spec_file

    return SpecOptions(
        short_side=args.short_side,
        long_side=args.long_side,
        score_threshold=args.score_threshold,
        nms_iou=args.nms_iou,
        detections=args.detections,
        candidates=args.candidates,
        norm_eps=args.norm_eps,
        names=None if args.names is None else _names(args.names),
        overrides=None if args.spec is None else read_spec_file(args.spec),
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
    """The weights and the code of a command, for the next one."""
    options = {"--model": args.model_code, "--model-args": args.model_args}
    given = [part for name, value in options.items() if value for part in (name, value)]
    return [*([] if weights is None else [weights]), *given]


def print_reading(checkpoint: AnyModel) -> None:
    """Print each note about the files that were read, and each assumption, on its own line."""
    if checkpoint.taken:
        print(f"weights: {printable(checkpoint.taken)}")
    for note in checkpoint.notes:
        print(printable(note))
    for line in listing(checkpoint.assumptions):
        print(f"assumed: {printable(line)}")


def _names(text: str) -> tuple[str, ...]:
    """Class names from a file with one per line, or from comma-separated text."""
    path = Path(text)
    if os.path.isfile(text):
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--names {text}: expected a UTF-8 text file with one name per line ({error})"
            ) from error
    elif "," not in text and (path.suffix or path.parent != Path(".")):
        raise UsageError(f"--names {text}: no such file; expected a file, or names like cat,dog")
    else:
        lines = text.split(",")
    return tuple(line.strip() for line in lines if line.strip())
