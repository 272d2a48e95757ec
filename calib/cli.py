"""The options of `maskport quantize`, and the checks before calibration starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from export.cli_spec_options import add_model_arguments, model_builder
from model.errors import ArtifactError, UsageError
from runtime.cli.console import Parser, plural, printable, thread_count
from runtime.cli.figure import require_matplotlib
from runtime.cli.photo_options import add_value_range
from runtime.files import make_folder

if TYPE_CHECKING:
    from calib.calibration.photos import Photo
    from calib.evaluation.photos import EvaluationSet
    from calib.options import QuantizeOptions
    from export.onnx_file import OnnxFile


# An old name of an option.
_HIDDEN: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}


class Removed(argparse.Action):
    """An option of an earlier version; ends with a usage error."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Name the option."""
        parser.error(f"{self.option_strings[0]} was removed: it did not improve accuracy")


def parser() -> Parser:
    """All options."""
    parser = Parser(
        prog="maskport quantize",
        description="`maskport quantize`: quantize an exported graph, calibrated on photos.",
    )
    parser.add_argument("model", type=Path, help="an FP32 .onnx file of maskport export")
    parser.add_argument("photos", nargs="*", help="image files, folders or glob patterns")
    parser.add_argument("-o", "--output", type=Path, help="default: MODEL with suffix .FORMAT.onnx")
    _add_precision(parser)
    _add_layers(parser)
    _add_evaluation(parser)
    add_value_range(parser)
    parser.add_argument(
        "--threads", type=thread_count, help="threads of the network; default: all cores"
    )
    return parser


def _add_precision(parser: Parser) -> None:
    """Number formats, ranges and rounding."""
    parser.add_argument("--format", default="int8", choices=("int8", "fp8"), help="default: int8")
    parser.add_argument(
        "--float-type",
        default="fp32",
        choices=("fp32", "fp16"),
        help="data type of the other layers; default: fp32",
    )
    parser.add_argument("--rest", dest="float_type", choices=("fp32", "fp16"), **_HIDDEN)
    parser.add_argument(
        "--method", help="how ranges are chosen: min-max, percentile, entropy or mse; default: mse"
    )
    parser.add_argument(
        "--rounding",
        type=lambda name: "gptq" if name == "learned" else name,
        choices=("gptq", "nearest"),
        help="rounding of weights: GPTQ on the first photos, or nearest; default: gptq",
    )
    parser.add_argument("--equalise", action=Removed, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--correct-bias", action=Removed, nargs=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--reduce-range",
        choices=("auto", "yes", "no"),
        default="auto",
        help="7-bit weights, with which int8 sums never saturate; default: auto, which is yes if "
        "this CPU has no VNNI and Q/DQ are placed for ONNX Runtime",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="calibration table, resumed if it exists; default: the output's name + .table.json",
    )
    parser.add_argument(
        "--import-cache",
        type=Path,
        metavar="FILE",
        help="take the ranges from a TensorRT 8 or 10 calibration cache",
    )


def _add_layers(parser: Parser) -> None:
    """Which layers, and where Q/DQ pairs go."""
    parser.add_argument(
        "--preset",
        default="accurate",
        metavar="NAME",
        help="accurate: quantize the heads; balanced: also the pyramid and most of the body; "
        "fast: everything but the predictors; default: accurate",
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="POINTS",
        help="maximum loss of agreement AP in points, on calibration photos; the most sensitive "
        "layers stay in floating point",
    )
    parser.add_argument(
        "--qdq-placement",
        metavar="NAME",
        help="place Q/DQ for the fusions of tensorrt or onnxruntime; default: by the target",
    )
    parser.add_argument("--qdq", dest="qdq_placement", **_HIDDEN)


def _add_evaluation(parser: Parser) -> None:
    """What the result is compared with, and what is written about it."""
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="checkpoint or FP32 .onnx file to compare with; default: the model itself",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--eval-images", metavar="DIR", help="held-out photos to evaluate the result on"
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="COCO annotations of those photos"
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="write quantize.json and plots there"
    )
    parser.add_argument(
        "--histograms",
        action="store_true",
        help="with --run-dir: plot every quantized tensor's values and range",
    )


def options_of(args: argparse.Namespace) -> QuantizeOptions:
    """How to quantize.

    Raises:
        UsageError: an unknown value, or options that exclude each other.
    """
    from calib.options import DEFAULT_METHOD, DEFAULT_ROUNDING, QuantizeOptions, require_no_photos

    if args.import_cache is not None:
        # Also where they are the default, which `QuantizeOptions` cannot detect.
        require_no_photos(
            {"--method": args.method is not None, "--rounding gptq": args.rounding == "gptq"}
        )
    return QuantizeOptions(
        format=args.format,
        float_type=args.float_type,
        method=DEFAULT_METHOD if args.method is None else args.method,
        rounding=args.rounding or DEFAULT_ROUNDING,
        reduce_range={"auto": None, "yes": True, "no": False}[args.reduce_range],
        writer=args.qdq_placement,
        preset=args.preset,
        table=args.table,
        import_cache=args.import_cache,
        budget=args.budget,
        reference=args.reference,
        reference_model=model_builder(args),
        threads=args.threads,
        value_range=args.value_range,
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what would fail, or have no effect, after minutes of work.

    Raises:
        UsageError: options that need others.
        ArtifactError: a file is missing, or a folder cannot be made.
        MissingDependencyError: matplotlib is not installed.
    """
    if not args.model.is_file():
        raise ArtifactError(f"{args.model}: no such file; expected an ONNX file of maskport export")
    is_compared = args.budget is not None or args.eval_images is not None
    if (args.reference or args.model_code) is not None and not is_compared:
        option = "--model" if args.reference is None else "--reference"
        raise UsageError(f"{option}: nothing is compared; add --budget or --eval-images")
    if args.reference is not None and not args.reference.is_file():
        raise ArtifactError(f"--reference {args.reference}: no such file; check the path")
    if args.annotations is not None and args.eval_images is None:
        raise UsageError("--annotations: no photos; add --eval-images, the annotated ones")
    if is_compared and args.format != "int8":
        raise UsageError("--budget and --eval-images: ONNX Runtime has no FP8; use --format int8")
    if args.histograms:
        _check_histograms(args)
    if args.run_dir is not None:
        make_folder(args.run_dir)
        if args.budget is not None or args.histograms:
            require_matplotlib("--run-dir with --budget or --histograms")


def _check_histograms(args: argparse.Namespace) -> None:
    from calib.observers.histogram import Histogram
    from calib.observers.methods import METHODS
    from calib.options import DEFAULT_METHOD, require_no_photos

    if args.run_dir is None:
        raise UsageError("--histograms: no folder; add --run-dir, where the plots go")
    methods = [name for name, observer in METHODS.items() if issubclass(observer, Histogram)]
    method = DEFAULT_METHOD if args.method is None else args.method
    if method not in methods:
        raise UsageError(
            f"--histograms: --method {method} has no histogram; use one of {', '.join(methods)}"
        )
    require_no_photos({"--histograms": args.import_cache is not None})


def check_photos(photos: Sequence[Path], args: argparse.Namespace) -> None:
    """Calibration photos are needed, unless an imported cache has the ranges.

    Raises:
        UsageError: neither or both.
    """
    from calib.options import require_no_photos

    if args.import_cache is None:
        if not photos:
            raise UsageError(
                "expected photos to calibrate on: image files, folders or glob patterns"
            )
        return
    if photos:
        raise UsageError("--import-cache: it has the ranges; leave the photos out")
    require_no_photos({"--eval-images": args.eval_images is not None})


def evaluation_set(
    args: argparse.Namespace, file: OnnxFile, calibration: Sequence[Photo]
) -> EvaluationSet | None:
    """The held-out photos, with annotations; unusable photos are left out with a warning.

    Raises:
        UsageError: no photo, or annotations that cannot be used.
    """
    from calib.calibration.photos import Photo
    from calib.evaluation.photos import open_evaluation_set

    if args.eval_images is None:
        return None
    photos, unusable = open_evaluation_set(
        args.eval_images, args.annotations, file.artifact, args.value_range
    )
    for notice in () if photos.labels is None else photos.labels.notices:
        print(printable(notice))
    for reason in unusable:
        print(f"warning: {printable(reason)}; left out", file=sys.stderr)
    digests = {photo.digest for photo in calibration}
    shared = sum(Photo.of(path).digest in digests for path in photos.paths)
    if shared:
        print(
            f"warning: {plural(shared, 'photo')} in both sets; the evaluation is optimistic",
            file=sys.stderr,
        )
    return photos
