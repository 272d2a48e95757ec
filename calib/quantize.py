"""`maskport quantize`: 8 bits in an exported graph, calibrated on photos.

python -m calib.quantize model.onnx photos -o model.int8.onnx
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calib.cli import check_arguments, check_photos, evaluation_set, options_of, parser
from model.errors import ArtifactError, UsageError
from runtime.cli.console import DONE, Bar, require_packages, run
from runtime.cli.next_command import next_step
from runtime.files import atomic_path, refuse_overwrite

if TYPE_CHECKING:
    from calib.calibration.photos import Photo
    from calib.calibration.work import Kernels
    from calib.context import Progress, RunContext
    from calib.evaluation.photos import EvaluationSet
    from calib.graph.placement import Placement
    from calib.options import QuantizeOptions
    from calib.quantizer import Quantizer
    from calib.report.report import QuantizeReport
    from export.onnx_file import OnnxFile
    from export.precision.ranges import RangeReport

# What ONNX Runtime runs on a CPU as written: it has no FP8 there, and no half precision.
_CPU_TYPES = ("int8", "fp32")


def quantize(
    source: str | Path | OnnxFile,
    photos: Sequence[str | Path | Photo],
    output: str | Path,
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
    evaluation: EvaluationSet | None = None,
) -> QuantizeReport:
    """Quantize an exported graph.

    Args:
        source: an FP32 file of `maskport export`.
        photos: to calibrate on; none with an imported cache.
        output: path of the quantized file. On failure no file is left there, unless only the
            evaluation fails, which comes last.
        options: how to quantize.
        progress: called at the start of each stage with the number of photos that it runs and its
            title; returns a function that takes the number of photos just done.
        evaluation: held-out photos, read after all choices are made.

    Raises:
        UsageError: impossible options, an output that would overwrite the source, or too few usable
            photos.
        ArtifactError: a source that maskport did not write or that is quantized already, a table
            that does not fit, a tensor that is not finite, or an output that cannot be written.
        ExportError: with `float_type="fp16"`, a tensor or a weight exceeds FP16.
    """
    from calib.context import silent
    from calib.evaluation.rows import evaluate_file
    from calib.options import QuantizeOptions
    from calib.quantizer import prepare
    from calib.report.report import QuantizeReport
    from calib.report.tensor_stats import tensor_histograms
    from calib.search.search import choose_layers
    from export.onnx_file import read_onnx

    options, output = options or QuantizeOptions(), Path(output)
    table = options.table or output.with_suffix(".table.json")
    path = Path(source) if isinstance(source, str | Path) else source.artifact.path
    _check_output(output, path, table)
    file = read_onnx(path) if isinstance(source, str | Path) else source
    _check_before_calibration(file, options, evaluation)
    choice = None
    with atomic_path(output) as temporary:
        quantizer = prepare(file, photos, table, options, progress or silent)
        ranges = _fp16_ranges(quantizer)
        nodes = quantizer.preset_nodes
        if options.budget is not None:
            choice = choose_layers(quantizer, options.budget)
            nodes = set(choice.search.chosen.nodes)
        placement = _write(quantizer, nodes, temporary)
        kernels = _kernels(temporary, quantizer.context)
        layers = tuple(layer.name for layer in placement.layers)
        fraction = quantizer.work_fraction(layers) if quantizer.photos else None
    evaluated = None if evaluation is None else evaluate_file(quantizer, output, evaluation)
    return QuantizeReport(
        path=output,
        size_bytes=output.stat().st_size,
        from_bytes=path.stat().st_size,
        context=quantizer.context,
        layers=layers,
        of_layers=len(quantizer.layers),
        fraction=fraction,
        kernels=kernels,
        tensors=() if quantizer.table is None else tensor_histograms(placement, quantizer.table),
        calibration=quantizer.summary,
        example=quantizer.photos[0].path if quantizer.photos else None,
        choice=choice,
        ranges=ranges,
        evaluation=evaluated,
    )


def _check_before_calibration(
    file: OnnxFile, options: QuantizeOptions, evaluation: EvaluationSet | None
) -> None:
    """Refuse what would only fail after minutes of work."""
    from calib.context import RunContext
    from calib.evaluation.reference import open_reference
    from runtime.compare.coco_evaluators import require_pycocotools

    require_float(file)
    context = RunContext.of(file, options)
    if options.budget is not None or evaluation is not None:
        require_pycocotools("--budget and --eval-images need")
    if options.reference is not None or options.reference_model is not None:
        open_reference(context).close()


def _fp16_ranges(quantizer: Quantizer) -> RangeReport | None:
    """None where no layer is in FP16, or without photos."""
    from calib.evaluation.half_emulation import PHOTOS, fp16_ranges

    if quantizer.context.options.float_type != "fp16" or not quantizer.photos:
        return None
    quantizer.context.start(min(len(quantizer.photos), PHOTOS), "checking FP16 ranges")
    return fp16_ranges(quantizer.model, quantizer.photos, quantizer.context)


def _write(quantizer: Quantizer, nodes: set[str], path: Path) -> Placement:
    """Write the graph with those layers quantized, and check it."""
    import onnx
    import onnx_ir as ir

    from runtime.artifacts.checksum import append_checksum

    model, placement = quantizer.quantized(nodes)
    ir.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    append_checksum(path)
    return placement


def _kernels(path: Path, context: RunContext) -> Kernels | None:
    """Of a file that ONNX Runtime runs on a CPU as written."""
    from calib.calibration.work import count_kernels

    if (context.options.format, context.options.float_type) != _CPU_TYPES:
        return None
    return count_kernels(path, context.threads)


def _check_output(output: Path, source: Path, table: Path) -> None:
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"-o {output}: expected a name that ends in .onnx")
    refuse_overwrite(output, source)
    if os.path.realpath(table) in (os.path.realpath(output), os.path.realpath(source)):
        raise UsageError(f"--table {table}: it would overwrite a model; use another name")
    for option, path in (("-o", output), ("--table", table)):
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: no such folder; create it first")


def require_float(file: OnnxFile) -> None:
    """Refuse what is not a plain FP32 graph.

    Raises:
        ArtifactError: it is quantized, or in half precision.
    """
    path, precision = file.artifact.path, file.artifact.manifest.precision
    op_types = {node.op_type for node in file.model.graph.node}
    if precision.startswith(("int8", "fp8")) or op_types & {"QuantizeLinear", "DequantizeLinear"}:
        raise ArtifactError(
            f"{path}: already quantized (precision {precision}); quantize the FP32 file"
        )
    if precision != "fp32":
        raise ArtifactError(
            f"{path}: its precision is {precision}, expected fp32; export it again without "
            "--precision and quantize that (--float-type fp16 for the other layers)"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_quantize, argv)


def _quantize(argv: Sequence[str]) -> int:
    args = parser().parse_intermixed_args(argv)
    require_packages("quantize", "onnx", "onnx_ir", "onnxruntime")
    from calib.calibration.photos import Photo
    from calib.report.report import print_report, write_run
    from export.onnx_file import read_onnx
    from runtime.sources.photos import find_photos

    options = options_of(args)
    check_arguments(args)
    paths = find_photos(args.photos)
    check_photos(paths, args)
    output = args.output or args.model.with_suffix(f".{options.format}.onnx")
    photos, file = list(map(Photo.of, paths)), read_onnx(args.model)
    evaluation = evaluation_set(args, file, photos)
    report = quantize(file, photos, output, options, _show_progress, evaluation)
    print_report(report)
    if args.run_dir is not None:
        print(f"wrote {', '.join(map(str, write_run(report, args.run_dir, args.histograms)))}")
    _print_next(report)
    return DONE


def _show_progress(total: int, title: str) -> Callable[[int], None]:
    print(f"{title}:", file=sys.stderr)
    return Bar(total, "photos").advance


def _print_next(report: QuantizeReport) -> None:
    if report.context.writer == "tensorrt":
        print(next_step("engine", report.path))
    else:
        print(next_step("predict", report.path, report.example or Path("PHOTO.jpg"), "-o", "out"))


if __name__ == "__main__":
    sys.exit(main())
