"""`maskport quantize`: an exported graph to 8 bits, calibrated on photos.

python -m calib.quantize model.onnx photos -o model.int8.onnx
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ArtifactError, MissingDependencyError, UsageError
from runtime.console import DONE, Bar, Parser, complain, fraction, run, whole_number
from runtime.files import atomic_path
from runtime.next_step import next_step

if TYPE_CHECKING:
    from calib.calibrate import CalibrationRun
    from calib.count import Kernels
    from calib.job import Job
    from calib.options import QuantizeOptions
    from export.onnx_file import OnnxFile

# ONNX Runtime has neither FP8 nor, with a CPU, half precision.
_ON_A_CPU = ("int8", "fp32")


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was written and what became of it.

    `share` is that of the multiply-adds whose data and weights are both quantised, on the first
    photo; None where there was none. `kernels` is None for a file that ONNX Runtime does not run
    on a CPU as it is written. `run` is None where no photo was needed.
    """

    path: Path
    writer: str
    layers: int
    of_layers: int
    size_bytes: int
    from_bytes: int
    kernels: Kernels | None
    share: float | None
    run: CalibrationRun | None
    skipped: list[str] = field(default_factory=list)


def quantize(
    source: str | Path,
    photos: Sequence[Path],
    output: str | Path,
    options: QuantizeOptions | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> QuantizeReport:
    """Quantise an exported graph.

    Args:
        source: an FP32 file of `maskport export`.
        photos: to calibrate on; none are needed with an imported cache.
        output: where the file goes; nothing is left there when anything fails.
        options: how.
        advance: called with the number of photos done: each counts once for its ranges, and the
            first few once more for rounding (`photo_runs` tells how many that makes).

    Raises:
        UsageError: an impossible option, an output that would overwrite the source, or too few
            usable photos.
        ArtifactError: a file that is not ours or is quantised already, a table that does not fit,
            a tensor that is not finite, or an output that cannot be written.
    """
    from calib.job import prepare
    from calib.options import QuantizeOptions
    from export.onnx_file import read_onnx

    options, source, output = options or QuantizeOptions(), Path(source), Path(output)
    _check_output(output, source)
    file = read_onnx(source)
    require_float(file, source)
    table = options.table or output.with_suffix(".table.json")
    with atomic_path(output) as temporary:
        job = prepare(file, source, table, photos, options, advance)
        written = write(job, job.default_choice, temporary)
    return QuantizeReport(
        output,
        job.writer,
        written.layers,
        len(job.layers),
        output.stat().st_size,
        source.stat().st_size,
        written.kernels,
        written.share,
        job.run,
        job.skipped,
    )


@dataclass(frozen=True, slots=True)
class Written:
    """A file of one choice of layers; see `QuantizeReport`."""

    layers: int
    share: float | None
    kernels: Kernels | None


def write(job: Job, choice: set[str], path: Path) -> Written:
    """Write the graph with those layers quantised, and have it checked.

    Raises:
        ArtifactError: ONNX Runtime cannot open it.
    """
    import onnx
    import onnx_ir as ir

    from calib.count import count_kernels

    model, placement = job.quantised(choice)
    ir.save(model, path)
    onnx.checker.check_model(str(path))
    runs = (job.options.format, job.options.rest) == _ON_A_CPU
    kernels = count_kernels(path) if runs else None
    share = job.share(placement) if job.used else None
    return Written(len(placement.layers), share, kernels)


def photo_runs(photos: int, options: QuantizeOptions) -> int:
    """How often `advance` counts a photo."""
    from calib.learned_rounding import PHOTOS

    if options.import_cache is not None:
        return 0
    return photos + (min(photos, PHOTOS) if options.rounding == "learned" else 0)


def _check_output(output: Path, source: Path) -> None:
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"-o {output}: expected a name that ends in .onnx")
    if os.path.realpath(output) == os.path.realpath(source):
        raise UsageError(f"{output}: the output would overwrite the model; name another (-o)")


def require_float(file: OnnxFile, path: Path) -> None:
    """Refuse what is not a plain FP32 graph.

    Raises:
        ArtifactError: it is quantised, or in half precision.
    """
    precision = file.artifact.manifest.precision
    kinds = {node.op_type for node in file.model.graph.node}
    if precision.startswith(("int8", "fp8")) or kinds & {"QuantizeLinear", "DequantizeLinear"}:
        raise ArtifactError(
            f"{path}: quantised already (precision {precision}); quantise the FP32 file"
        )
    if precision != "fp32":
        raise ArtifactError(
            f"{path}: its precision is {precision}; expected fp32, export it again without "
            "--precision and quantise that (--rest fp16 for the other layers)"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    return run(_quantize, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport quantize", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an FP32 .onnx file of maskport export")
    parser.add_argument("photos", nargs="*", help="image files, folders or glob patterns")
    parser.add_argument("-o", "--output", type=Path, help="default: the model's name + .int8.onnx")
    parser.add_argument("--format", default="int8", choices=("int8", "fp8"), help="default int8")
    parser.add_argument(
        "--rest",
        default="fp32",
        choices=("fp32", "fp16"),
        help="what the other layers compute in; default fp32",
    )
    parser.add_argument(
        "--method",
        default="mse",
        help="how ranges are chosen: min-max, moving-average, percentile, entropy or mse; "
        "default %(default)s",
    )
    parser.add_argument(
        "--rounding",
        default="learned",
        choices=("learned", "nearest"),
        help="of the weights: learned on the first photos, or each to the nearest; default learned",
    )
    parser.add_argument(
        "--equalise",
        type=fraction,
        default=0.0,
        metavar="0..1",
        help="how far channels are made alike before; default 0, not at all",
    )
    parser.add_argument(
        "--qdq",
        metavar="NAME",
        help="tensorrt or onnxruntime: whose fusions Q/DQ are placed for; default by the target",
    )
    parser.add_argument(
        "--float-stride",
        type=int,
        default=None,
        metavar="PX",
        help="layers of the body up to this stride stay in floating point; 0 for none; default "
        "in docs/precision.md",
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
    parser.add_argument("--threads", type=whole_number, help="of the network, default all cores")
    return parser


def _quantize(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    _require_libraries()
    from runtime.sources.photos import find_photos

    options = _options(args)
    photos = find_photos(args.photos)
    _check_photos(photos, args)
    output = args.output or args.model.with_suffix(f".{options.format}.onnx")
    bar = Bar(photo_runs(len(photos), options), "photos")
    report = quantize(args.model, photos, output, options, bar.advance)
    _print_report(report, photos)
    return DONE


def _options(args: argparse.Namespace) -> QuantizeOptions:
    from calib.observers.methods import method_named
    from calib.options import QuantizeOptions
    from calib.policy import FLOAT_STRIDE

    method_named(args.method)
    stride = FLOAT_STRIDE if args.float_stride is None else args.float_stride
    if stride < 0:
        raise UsageError(f"--float-stride: expected 0 or more pixels, got {stride}")
    return QuantizeOptions(
        format=args.format,
        rest=args.rest,
        method=args.method,
        rounding=args.rounding,
        equalise=args.equalise,
        writer=args.qdq,
        float_stride=stride,
        table=args.table,
        import_cache=args.import_cache,
        threads=args.threads,
    )


def _check_photos(photos: Sequence[Path], args: argparse.Namespace) -> None:
    """Photos or a cache; few photos are worth a word."""
    from calib.photos import ADVISED

    if args.import_cache is not None:
        if photos:
            raise UsageError("--import-cache: it holds the ranges; leave the photos out")
        return
    if not photos:
        raise UsageError("expected photos to calibrate on: image files, folders or glob patterns")
    if len(photos) < ADVISED:
        print(f"warning: {len(photos)} photos; ranges of fewer than {ADVISED} are not steady")


def _require_libraries() -> None:
    for name in ("onnx", "onnx_ir", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"quantize needs {name}, which is not installed; pip install 'maskport[export]'"
            )


def _print_report(report: QuantizeReport, photos: Sequence[Path]) -> None:
    for reason in report.skipped:
        complain(f"{reason}; skipped")
    if report.run is not None:
        used, seen = report.run.used, report.run.resumed
        print(
            f"{used} photos, {report.run.seconds_per_photo:.2f} s each · {seen} seen before · "
            f"{len(report.skipped)} skipped"
        )
    size, ratio = report.size_bytes / 1e6, report.size_bytes / report.from_bytes
    print(f"{report.path} · {size:.0f} MB, {ratio:.0%} of FP32 · Q/DQ for {report.writer}")
    share = "" if report.share is None else f", {report.share:.0%} of their multiply-adds"
    print(f"{report.layers} of {report.of_layers} weighted layers in 8 bits{share}")
    if report.kernels is not None:
        print(f"ONNX Runtime on this CPU: {report.kernels}")
    if report.writer == "tensorrt":
        print(next_step("engine", report.path))
    else:
        print(next_step("predict", report.path, *photos[:1], "-o", "out"))


if __name__ == "__main__":
    sys.exit(main())
