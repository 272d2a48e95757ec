"""Options for the fields of a model's spec that a checkpoint does not hold."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from model.errors import UsageError
from model.spec_options import SpecOptions, read_spec_file
from runtime.cli.console import fraction, whole_number

_FLAGS = (
    "config", "short_side", "long_side", "score_threshold", "nms_iou", "detections", "candidates",
    "norm_eps", "names", "spec",
)  # fmt: skip


def add_spec_options(parser: argparse.ArgumentParser, score_threshold: bool = True) -> None:
    """Add the group of options; a command may have another `--score-threshold`."""
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
    if score_threshold:
        group.add_argument("--score-threshold", type=fraction, metavar="P", help="minimum score")
    group.add_argument("--nms-iou", type=fraction, metavar="IOU", help="IoU limit of the final NMS")
    group.add_argument("--detections", type=whole_number, metavar="D", help="maximum per image")
    group.add_argument(
        "--candidates", type=whole_number, metavar="K", help="maximum boxes before the final NMS"
    )
    group.add_argument("--norm-eps", type=float, metavar="EPS", help="BatchNorm epsilon")
    group.add_argument("--names", help="class names: a file with one per line, or a,b,c")
    group.add_argument("--spec", type=Path, help="JSON file with any fields of the spec")


def spec_options(args: argparse.Namespace, score_threshold: bool = True) -> SpecOptions:
    """The fields that the user set.

    Raises:
        UsageError: names that cannot be read.
        SpecError: a spec file that cannot be read.
    """
    return SpecOptions(
        short_side=args.short_side,
        long_side=args.long_side,
        score_threshold=args.score_threshold if score_threshold else None,
        nms_iou=args.nms_iou,
        detections=args.detections,
        candidates=args.candidates,
        norm_eps=args.norm_eps,
        names=None if args.names is None else _names(args.names),
        overrides=None if args.spec is None else read_spec_file(args.spec),
    )


def spec_arguments(args: argparse.Namespace, score_threshold: bool = True) -> Sequence[str]:
    """The options that the user gave, for the next command."""
    names = [name for name in _FLAGS if score_threshold or name != "score_threshold"]
    given = [(f"--{name.replace('_', '-')}", getattr(args, name, None)) for name in names]
    return [part for flag, value in given if value is not None for part in (flag, str(value))]


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
