"""`maskport quantize`: an exported graph to 8 bits, calibrated on photos.

python -m calib.quantize model.onnx photos -o model.int8.onnx
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calib.cli import check_photos, check_run, evaluation_of, options_of, parser
from model.errors import ArtifactError, MissingDependencyError, UsageError
from runtime.cli.console import DONE, Bar, run
from runtime.cli.next_command import next_step
from runtime.files import atomic_path

if TYPE_CHECKING:
    from calib.calibration.work import Kernels
    from calib.evaluation.rows import Evaluation
    from calib.options import QuantizeOptions
    from calib.quantizer import Job
    from calib.report.report import QuantizeReport
    from calib.report.tensor_stats import Seen
    from export.onnx_file import OnnxFile
    from export.precision.ranges import RangeReport

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
        output: where the file goes. Nothing is left there when anything fails before it is
            complete; it stays when only the proof fails, which comes after.
        options: how.
        progress: called before each stretch of work with the number of its photos, counted once
            per run, and its name; what it answers is called with photos done.
        evaluation: photos to prove the result on; they are read after all is chosen.

    Raises:
        UsageError: an impossible option, an output that would overwrite the source, or too few
            usable photos.
        ArtifactError: a file that is not ours or is quantised already, a table that does not fit,
            a tensor that is not finite, or an output that cannot be written.
        ExportError: with `--rest fp16`, a tensor or a weight that FP16 does not hold.
    """
    from calib.evaluation.rows import all_proofs, runs_of_a_proof
    from calib.options import QuantizeOptions
    from calib.quantizer import prepare
    from calib.report.report import QuantizeReport
    from calib.rounding.vnni import sums_saturate
    from calib.search.search import choose, runs_of_a_search
    from export.onnx_file import read_onnx

    options, source, output = options or QuantizeOptions(), Path(source), Path(output)
    table = options.table or output.with_suffix(".table.json")
    _check_output(output, source, table)
    file = read_onnx(source)
    _check_judges(file, source, options, evaluation)
    choice = None
    with atomic_path(output) as temporary:
        advance = progress(photo_runs(len(photos), options), "calibrating")
        job = prepare(file, source, table, photos, options, advance)
        ranges = _ranges_of_the_rest(job, progress)
        nodes = job.default_choice
        if options.budget is not None:
            advance = progress(runs_of_a_search(job), "judging groups of layers")
            choice = choose(job, options.budget, advance)
            nodes = set(choice.ladder.chosen.nodes)
        written = write(job, nodes, temporary)
    proofs = None
    if evaluation is not None:
        advance = progress(runs_of_a_proof(options) * len(evaluation.photos), "evaluating")
        proofs = all_proofs(job, source, output, evaluation, advance)
    return QuantizeReport(
        path=output,
        writer=job.writer,
        layers=written.layers,
        of_layers=len(job.layers),
        size_bytes=output.stat().st_size,
        from_bytes=source.stat().st_size,
        kernels=written.kernels,
        share=written.share,
        run=job.run,
        skipped=job.skipped,
        choice=choice,
        proofs=proofs,
        options=options,
        model_sha256=file.sha256,
        ranges=ranges,
        reduced_range=job.reduces_range,
        sums_saturate=job.writer == "onnxruntime" and options.format == "int8" and sums_saturate(),
        seen=written.seen,
        example=job.used[0] if job.used else None,
        has_keypoints=file.artifact.spec.keypoint is not None,
    )


def _check_judges(
    file: OnnxFile, source: Path, options: QuantizeOptions, evaluation: Evaluation | None
) -> None:
    """What would only fail after minutes of work: the graph, and what it is to be judged by."""
    from calib.evaluation.annotations import require_truth
    from calib.evaluation.reference import open_reference
    from calib.search.search import require_judge
    from calib.writers.registry import writer_for

    require_float(file, source)
    writer_for(file.artifact.manifest.target, options)
    if options.budget is not None or evaluation is not None:
        require_judge()
    if evaluation is not None and evaluation.truth is not None:
        require_truth(evaluation.photos, evaluation.truth, file.artifact.spec)
    if options.reference is not None:
        open_reference(options.reference, file.artifact, options.threads).close()


def _ranges_of_the_rest(job: Job, progress: Progress) -> RangeReport | None:
    """None where nothing is in halves, or no photo says what they hold."""
    from calib.evaluation.half_emulation import PHOTOS, ranges_of_the_rest

    if job.options.rest != "fp16" or not job.used:
        return None
    advance = progress(min(len(job.used), PHOTOS), "looking at FP16's ranges")
    return ranges_of_the_rest(job.model, job.artifact, job.used, advance, job.options.threads)


@dataclass(frozen=True, slots=True)
class Written:
    """A file of one choice of layers; see `QuantizeReport`."""

    layers: tuple[str, ...]
    share: float | None
    kernels: Kernels | None
    seen: tuple[Seen, ...]


def write(job: Job, choice: set[str], path: Path) -> Written:
    """Write the graph with those layers quantised, and have it checked.

    Raises:
        ArtifactError: ONNX Runtime cannot open it.
    """
    import onnx
    import onnx_ir as ir

    from calib.calibration.work import count_kernels
    from calib.report.tensor_stats import seen
    from runtime.artifacts.checksum import append_checksum

    model, placement = job.quantised(choice)
    ir.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    append_checksum(path)
    runs = (job.options.format, job.options.rest) == _ON_A_CPU
    kernels = count_kernels(path, job.options.threads) if runs else None
    share = job.share(placement) if job.used else None
    layers = tuple(str(layer.node.name) for layer in placement.layers)
    shown = () if job.table is None else seen(placement, job.table)
    return Written(layers, share, kernels, shown)


def photo_runs(photos: int, options: QuantizeOptions) -> int:
    """How often `advance` counts a photo."""
    from calib.calibration.layer_inputs import PHOTOS

    if options.import_cache is not None:
        return 0
    return photos + min(photos, PHOTOS) * options.learns_rounding


def _check_output(output: Path, source: Path, table: Path) -> None:
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"-o {output}: expected a name that ends in .onnx")
    if os.path.realpath(output) == os.path.realpath(source):
        raise UsageError(f"{output}: the output would overwrite the model; name another (-o)")
    if os.path.realpath(table) in (os.path.realpath(output), os.path.realpath(source)):
        raise UsageError(f"--table {table}: it would overwrite a model; name another")
    for option, path in (("-o", output), ("--table", table)):
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: no such folder; make it first")


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


def _quantize(argv: Sequence[str]) -> int:
    args = parser().parse_intermixed_args(argv)
    _require_libraries()
    from runtime.sources.photos import find_photos

    options = options_of(args)
    check_run(args)
    photos = find_photos(args.photos)
    check_photos(photos, args)
    output = args.output or args.model.with_suffix(f".{options.format}.onnx")
    from calib.report.report import print_report, write_run

    evaluation = evaluation_of(args, photos)
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
        print(f"wrote {', '.join(map(str, write_run(report, args.run_dir, args.histograms)))}")
    _print_next(report)
    return DONE


def _show_progress(total: int, what: str) -> Callable[[int], None]:
    print(f"{what}:", file=sys.stderr)
    return Bar(total, "photos").advance


def _require_libraries() -> None:
    for name in ("onnx", "onnx_ir", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"quantize needs {name}, which is not installed; pip install 'maskport[export]'"
            )


def _print_next(report: QuantizeReport) -> None:
    if report.writer == "tensorrt":
        print(next_step("engine", report.path))
    else:
        print(next_step("predict", report.path, report.example or Path("PHOTO.jpg"), "-o", "out"))


if __name__ == "__main__":
    sys.exit(main())
