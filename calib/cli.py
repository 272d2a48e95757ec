"""What `maskport quantize` takes: its options, and what is refused before the long part."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from model.errors import ArtifactError, UsageError
from runtime.cli.console import Parser, printable, thread_count
from runtime.cli.figure import require_matplotlib
from runtime.files import make_folder

if TYPE_CHECKING:
    from calib.evaluation.rows import Evaluation
    from calib.options import QuantizeOptions


class Removed(argparse.Action):
    """An option of an earlier version; ends with a usage error."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Name the option."""
        parser.error(f"{self.option_strings[0]} was removed: it did not improve accuracy")


def parser() -> Parser:
    """All options."""
    parser = Parser(
        prog="maskport quantize", description="An exported graph to 8 bits, calibrated on photos."
    )
    parser.add_argument("model", type=Path, help="an FP32 .onnx file of maskport export")
    parser.add_argument("photos", nargs="*", help="image files, folders or glob patterns")
    parser.add_argument(
        "-o", "--output", type=Path, help="default: the model's name + .FORMAT.onnx"
    )
    _add_ways(parser)
    _add_judges(parser)
    parser.add_argument("--threads", type=thread_count, help="of the network, default all cores")
    return parser


def _add_ways(parser: Parser) -> None:
    """How the file is quantised."""
    parser.add_argument("--format", default="int8", choices=("int8", "fp8"), help="default int8")
    parser.add_argument(
        "--rest",
        default="fp32",
        choices=("fp32", "fp16"),
        help="what the other layers compute in; default fp32",
    )
    parser.add_argument(
        "--method",
        help="how ranges are chosen: min-max, percentile, entropy or mse; default mse",
    )
    parser.add_argument(
        "--rounding",
        choices=("learned", "nearest"),
        help="of the weights: learned on the first photos, or each to the nearest; default learned",
    )
    parser.add_argument(
        "--reduce-range",
        choices=("auto", "yes", "no"),
        default="auto",
        help="7 bits for weights, which no CPU's sums overflow; default auto: where this CPU has "
        "no VNNI and the file is for ONNX Runtime",
    )
    parser.add_argument("--equalise", action=Removed, help=argparse.SUPPRESS)
    parser.add_argument("--correct-bias", action=Removed, nargs=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--qdq",
        metavar="NAME",
        help="tensorrt or onnxruntime: whose fusions Q/DQ are placed for; default by the target",
    )
    parser.add_argument(
        "--preset",
        default="accurate",
        metavar="NAME",
        help="accurate: 8 bits in the heads; balanced: also in the pyramid and most of the body; "
        "fast: everywhere but in predictors; default accurate",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="calibration table, taken up where it stands; default: the output's with .table.json",
    )
    parser.add_argument(
        "--import-cache", type=Path, metavar="FILE", help="ranges of a TensorRT 8 or 10 cache"
    )


def _add_judges(parser: Parser) -> None:
    """What it may lose, and what shows that."""
    parser.add_argument(
        "--budget",
        type=float,
        metavar="POINTS",
        help="points of agreement AP that may be lost: layers that cost most stay in floating "
        "point (--rest) until it holds, judged on calibration photos",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="checkpoint or FP32 .onnx to agree with; default: the model itself",
    )
    parser.add_argument(
        "--eval-images",
        metavar="DIR",
        help="photos to prove the result on; nothing is chosen by them",
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="COCO annotations of those photos"
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="write quantize.json and pictures there"
    )
    parser.add_argument(
        "--histograms",
        action="store_true",
        help="with --run-dir: a picture of every quantised tensor's numbers and range",
    )


def options_of(args: argparse.Namespace) -> QuantizeOptions:
    """How to quantise.

    Raises:
        UsageError: one that there is not, or two that do not go together.
    """
    from calib.options import DEFAULT_METHOD, DEFAULT_ROUNDING, QuantizeOptions, needs_photos

    if args.import_cache is not None:
        # Said is more than being so by default.
        asked = {
            "--method": args.method is not None,
            "--rounding learned": args.rounding == "learned",
        }
        for option, is_asked in asked.items():
            if is_asked:
                raise needs_photos(option)
    return QuantizeOptions(
        format=args.format,
        rest=args.rest,
        method=DEFAULT_METHOD if args.method is None else args.method,
        rounding=args.rounding or DEFAULT_ROUNDING,
        reduce_range={"auto": None, "yes": True, "no": False}[args.reduce_range],
        writer=args.qdq,
        preset=args.preset,
        table=args.table,
        import_cache=args.import_cache,
        budget=args.budget,
        reference=args.reference,
        threads=args.threads,
    )


def check_run(args: argparse.Namespace) -> None:
    """What would only fail, or be left out, after the long part."""
    if not args.model.is_file():
        raise ArtifactError(f"{args.model}: no such file; expected an ONNX file of maskport export")
    judged = args.budget is not None or args.eval_images is not None
    if args.reference is not None and not judged:
        raise UsageError("--reference: nothing is compared; give --budget or --eval-images too")
    if args.reference is not None and not args.reference.is_file():
        raise ArtifactError(f"--reference {args.reference}: no such file; check the path")
    if judged and args.format != "int8":
        raise UsageError("--budget and --eval-images: ONNX Runtime has no FP8; use --format int8")
    if args.histograms:
        _check_histograms(args)
    if args.run_dir is not None:
        make_folder(args.run_dir)
        if args.budget is not None or args.histograms:
            require_matplotlib("--run-dir with --budget or --histograms")


def _check_histograms(args: argparse.Namespace) -> None:
    if args.run_dir is None:
        raise UsageError("--histograms: the pictures need a folder; give --run-dir too")
    from calib.observers.histogram import Histogram
    from calib.observers.methods import METHODS
    from calib.options import DEFAULT_METHOD

    counting = [name for name, kind in METHODS.items() if issubclass(kind, Histogram)]
    method = DEFAULT_METHOD if args.method is None else args.method
    if method not in counting:
        raise UsageError(
            f"--histograms: --method {method} keeps no counts; take {', '.join(counting)}"
        )
    if args.import_cache is not None:
        raise UsageError("--import-cache: --histograms needs photos; leave one of them out")


def check_photos(photos: Sequence[Path], args: argparse.Namespace) -> None:
    """Photos or a cache."""
    if args.import_cache is not None:
        _check_import(photos, args)
        return
    if not photos:
        raise UsageError("expected photos to calibrate on: image files, folders or glob patterns")


def _check_import(photos: Sequence[Path], args: argparse.Namespace) -> None:
    """An imported cache holds the ranges, and no photo is looked at."""
    if photos:
        raise UsageError("--import-cache: it holds the ranges; leave the photos out")
    if args.eval_images is not None:
        from calib.options import needs_photos

        raise needs_photos("--eval-images")


def evaluation_of(args: argparse.Namespace, calibration: Sequence[Path]) -> Evaluation | None:
    """Photos and labels of the proof, if one is asked for.

    Raises:
        UsageError: no photo, or annotations that are none or not theirs.
    """
    from calib.calibration.photos import digest
    from calib.evaluation.annotations import read_annotations, require_sizes
    from calib.evaluation.rows import Evaluation
    from runtime.sources.photos import find_photos

    if args.eval_images is None:
        if args.annotations is not None:
            raise UsageError("--annotations: they are of --eval-images; give that folder too")
        return None
    photos = _readable(find_photos([args.eval_images]), args.model)
    truth = None if args.annotations is None else read_annotations(args.annotations)
    if truth is not None:
        require_sizes(photos, truth)
    shared = {digest(photo) for photo in photos} & {digest(photo) for photo in calibration}
    if shared:
        print(
            f"warning: {len(shared)} photos both calibrate and evaluate; the proof is too kind",
            file=sys.stderr,
        )
    return Evaluation(list(photos), truth)


def _readable(photos: Sequence[Path], model: Path) -> dict[Path, tuple[int, int]]:
    """Photos that the model can be given, with height and width; the others are left out, named."""
    from calib.calibration.photos import require_resizable
    from export.onnx_file import read_onnx
    from model.errors import ImageError
    from runtime.sources.photos import decode

    artifact = read_onnx(model).artifact

    found = {}
    for photo in photos:
        try:
            pixels = decode(photo)
            require_resizable(pixels, photo, artifact)
        except ImageError as error:
            print(f"warning: {printable(str(error))}; left out", file=sys.stderr)
            continue
        found[photo] = (pixels.shape[0], pixels.shape[1])
    if not found:
        raise UsageError("--eval-images: none of the photos can be decoded; give others")
    return found
