"""The options by which a user says what weights cannot tell."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import UsageError
from runtime.cli.console import fraction, printable, whole_number

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint, SpecOptions


def add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group of options."""
    says = parser.add_argument_group("what the weights cannot tell")
    says.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="the framework's own configuration; default: config.yaml beside the weights",
    )
    says.add_argument("--short-side", type=whole_number, metavar="PX")
    says.add_argument("--long-side", type=whole_number, metavar="PX")
    says.add_argument("--score-threshold", type=fraction, metavar="P")
    says.add_argument("--nms-iou", type=fraction, metavar="IOU")
    says.add_argument("--detections", type=whole_number, metavar="D", help="per image")
    says.add_argument(
        "--candidates", type=whole_number, metavar="K", help="boxes that reach the last NMS"
    )
    says.add_argument("--norm-eps", type=float, metavar="EPS", help="of BatchNorm")
    says.add_argument("--names", help="class names: a file with one a line, or a,b,c")
    says.add_argument("--spec", type=Path, help="JSON file with any fields of the spec")


def spec_options(args: argparse.Namespace) -> SpecOptions:
    """What the options say.

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


def print_reading(checkpoint: Checkpoint) -> None:
    """What was read besides the weights, and what was assumed, a line each."""
    for note in checkpoint.notes:
        print(printable(note))
    for assumption in checkpoint.assumptions:
        print(f"assumed: {printable(str(assumption))}")


def _names(text: str) -> tuple[str, ...]:
    """Class names out of a file with one a line, or out of the text itself."""
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
