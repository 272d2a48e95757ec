"""`maskport quantize`: an exported graph to 8 bits, calibrated on photos.

python -m calib.quantize model.onnx photos -o model.int8.onnx
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ArtifactError, MissingDependencyError, UsageError
from runtime.console import DONE, Bar, Parser, fraction, run, whole_number
from runtime.files import atomic_path
from runtime.next_step import next_step

if TYPE_CHECKING:
    from calib.count import Kernels
    from calib.evaluation import Proof
    from calib.job import Job
    from calib.options import QuantizeOptions
    from calib.proofs import Evaluation
    from calib.report import QuantizeReport
    from export.onnx_file import OnnxFile

Progress = Callable[[int, str], Callable[[int], None]]

# ONNX Runtime has neither FP8 nor, with a CPU, half precision.
_ON_A_CPU = ("int8", "fp32")


def quantize(
    source: str | Path,
    photos: Sequence[Path],
    output: str | Path,
    options: QuantizeOptions | None = None,
    progress: Progress = lambda total, what: lambda done: None,
    evaluation: Evaluation | None = None,
) -> QuantizeReport:
    """Quantise an exported graph.

    Args:
        source: an FP32 file of `maskport export`.
        photos: to calibrate on; none are needed with an imported cache.
        output: where the file goes; nothing is left there when anything fails.
        options: how.
        progress: called before each stretch of work with the number of its photos, counted once
            per run, and its name; what it answers is called with photos done.
        evaluation: photos to prove the result on; they are read after all is chosen.

    Raises:
        UsageError: an impossible option, an output that would overwrite the source, or too few
            usable photos.
        ArtifactError: a file that is not ours or is quantised already, a table that does not fit,
            a tensor that is not finite, or an output that cannot be written.
    """
    from calib.accuracy import choose, require_judge, runs_of_a_search
    from calib.job import prepare
    from calib.options import QuantizeOptions
    from calib.proofs import ROWS, all_proofs
    from calib.report import QuantizeReport
    from export.onnx_file import read_onnx

    options, source, output = options or QuantizeOptions(), Path(source), Path(output)
    _check_output(output, source)
    file = read_onnx(source)
    require_float(file, source)
    if options.budget is not None or evaluation is not None:
        require_judge()
    table = options.table or output.with_suffix(".table.json")
    choice = None
    with atomic_path(output) as temporary:
        advance = progress(photo_runs(len(photos), options), "calibrating")
        job = prepare(file, source, table, photos, options, advance)
        nodes = job.default_choice
        if options.budget is not None:
            advance = progress(runs_of_a_search(job), "judging groups of layers")
            choice = choose(job, options.budget, advance)
            nodes = set(choice.ladder.chosen.nodes)
        written = write(job, nodes, temporary)
    proofs: tuple[Proof, ...] = ()
    if evaluation is not None:
        advance = progress((len(ROWS) + 1) * len(evaluation.photos), "evaluating")
        proofs = all_proofs(job, source, output, evaluation, advance)
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
        choice,
        proofs,
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
    parser.add_argument(
        "--budget",
        type=_points,
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
        "--eval-images", metavar="DIR", help="photos to prove the result on, read at the end"
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="COCO annotations of those photos"
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="write quantize.json and pictures there"
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
    from calib.report import print_report, write_run

    evaluation = _evaluation(args)
    report = quantize(
        args.model,
        photos,
        output,
        options,
        _show_progress,
        evaluation,
    )
    print_report(report)
    if args.run_dir is not None:
        print(f"wrote {', '.join(map(str, write_run(report, args.run_dir)))}")
    _print_next(report, photos)
    return DONE


def _show_progress(total: int, what: str) -> Callable[[int], None]:
    print(f"{what}:", file=sys.stderr)
    return Bar(total, "photos").advance


def _evaluation(args: argparse.Namespace) -> Evaluation | None:
    from calib.evaluation import image_ids, read_annotations
    from calib.proofs import Evaluation
    from runtime.sources.photos import find_photos

    if args.eval_images is None:
        if args.annotations is not None:
            raise UsageError("--annotations: they are of --eval-images; give that folder too")
        return None
    if args.format != "int8":
        raise UsageError("--eval-images: ONNX Runtime has no FP8 on a CPU; use --format int8")
    photos = find_photos([args.eval_images])
    truth = None if args.annotations is None else read_annotations(args.annotations)
    if truth is not None:
        image_ids(photos, truth)
    return Evaluation(photos, truth)


def _options(args: argparse.Namespace) -> QuantizeOptions:
    from calib.observers.methods import method_named
    from calib.options import QuantizeOptions
    from calib.policy import checked_preset

    method_named(args.method)
    return QuantizeOptions(
        format=args.format,
        rest=args.rest,
        method=args.method,
        rounding=args.rounding,
        equalise=args.equalise,
        writer=args.qdq,
        preset=checked_preset(args.preset),
        table=args.table,
        import_cache=args.import_cache,
        budget=args.budget,
        reference=args.reference,
        threads=args.threads,
    )


def _points(text: str) -> float:
    """An argparse type: a number from 0 to 100."""
    with suppress(ValueError):
        if 0.0 <= float(text) <= 100.0:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected points of AP from 0 to 100, got '{text}'")


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


def _print_next(report: QuantizeReport, photos: Sequence[Path]) -> None:
    if report.writer == "tensorrt":
        print(next_step("engine", report.path))
    else:
        print(next_step("predict", report.path, *photos[:1], "-o", "out"))


if __name__ == "__main__":
    sys.exit(main())
