"""`maskport quantize`: an exported graph to INT8, calibrated on photos.

python -m calib.quantize model.onnx photos -o model.int8.onnx
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskport import __version__
from model.errors import ArtifactError, MissingDependencyError, UsageError
from runtime.console import DONE, Bar, Parser, complain, run, whole_number
from runtime.files import atomic_path
from runtime.next_step import next_step

if TYPE_CHECKING:
    import onnx_ir as ir

    from calib.calibrate import CalibrationRun
    from calib.count import Kernels
    from calib.layers import Layer
    from calib.writers.pairs import Ranges
    from export.onnx_file import OnnxFile
    from runtime.artifact import Artifact

FORMATS = ("int8",)
DEFAULT_METHOD = "mse"
DEFAULT_FLOAT_STRIDE = 4


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        method: of choosing ranges; see `calib.observers.methods`.
        writer: "tensorrt" or "onnxruntime"; None goes by the file's target.
        float_stride: the body's layers up to this stride stay in floating point; 0 for none.
        table: where the calibration table is; None puts it beside the output.
        import_cache: a TensorRT calibration cache to take the ranges from, instead of photos.
        threads: of the CPU; None takes all cores.
    """

    method: str = DEFAULT_METHOD
    writer: str | None = None
    float_stride: int = DEFAULT_FLOAT_STRIDE
    table: Path | None = None
    import_cache: Path | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was written and what became of it.

    `share` is that of the multiply-adds whose data and weights are both integers, on the first
    photo; None where there was none. `run` is None where no photo was needed.
    """

    path: Path
    writer: str
    layers: int
    of_layers: int
    size_bytes: int
    from_bytes: int
    kernels: Kernels
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
    """Quantise an exported graph to INT8.

    Args:
        source: an FP32 file of `maskport export`.
        photos: to calibrate on; none are needed with an imported cache.
        output: where the file goes; nothing is left there when anything fails.
        options: how.
        advance: called with the number of photos done.

    Raises:
        UsageError: an impossible option, an output that would overwrite the source, or too few
            usable photos.
        ArtifactError: a file that is not ours or is quantised already, a table that does not fit,
            a tensor that is not finite, or an output that cannot be written.
    """
    import onnx
    import onnx_ir as ir

    from calib.count import count_kernels
    from calib.layers import weighted_layers
    from calib.policy import chosen_layers
    from calib.recipe import WRITERS, writer_for
    from export.onnx_file import read_onnx

    options, source, output = options or QuantizeOptions(), Path(source), Path(output)
    _check_output(output, source)
    file = read_onnx(source)
    _require_float(file, source)
    artifact = file.artifact
    name = writer_for(artifact.manifest.target, options.writer)
    graph_model = ir.serde.deserialize_model(file.model)
    layers = weighted_layers(graph_model.graph)
    chosen = chosen_layers(layers, options.float_stride)
    if not chosen:
        raise ArtifactError(f"{source}: no layer to quantise; expected a Mask R-CNN of ours")
    with atomic_path(output) as temporary:
        calibration = _calibrated(graph_model, file, layers, photos, output, options, advance)
        share = _share(graph_model, artifact, layers, chosen, photos, name)
        writer = WRITERS[name]
        placement = writer.place(graph_model.graph, chosen)
        writer.write(graph_model.graph, placement, calibration.ranges)
        _describe(graph_model, artifact, options.method, name)
        ir.save(graph_model, temporary)
        onnx.checker.check_model(str(temporary))
        kernels = count_kernels(temporary)
    return QuantizeReport(
        output,
        name,
        len(placement.layers),
        len(layers),
        output.stat().st_size,
        source.stat().st_size,
        kernels,
        share,
        calibration.run,
        calibration.skipped,
    )


@dataclass(frozen=True, slots=True)
class _Calibration:
    """Where ranges come from."""

    ranges: Ranges
    run: CalibrationRun | None = None
    skipped: list[str] = field(default_factory=list)


def _check_output(output: Path, source: Path) -> None:
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"-o {output}: expected a name that ends in .onnx")
    if os.path.realpath(output) == os.path.realpath(source):
        raise UsageError(f"{output}: the output would overwrite the model; name another (-o)")


def _require_float(file: OnnxFile, path: Path) -> None:
    """Refuse what is not a plain FP32 graph."""
    precision = file.artifact.manifest.precision
    kinds = {node.op_type for node in file.model.graph.node}
    if precision.startswith(("int8", "fp8")) or kinds & {"QuantizeLinear", "DequantizeLinear"}:
        raise ArtifactError(
            f"{path}: quantised already (precision {precision}); quantise the FP32 file"
        )
    if precision != "fp32":
        raise ArtifactError(
            f"{path}: its precision is {precision}; expected fp32, export it again without "
            "--precision and quantise that"
        )


def _calibrated(
    graph_model: ir.Model,
    file: OnnxFile,
    layers: Sequence[Layer],
    photos: Sequence[Path],
    output: Path,
    options: QuantizeOptions,
    advance: Callable[[int], None],
) -> _Calibration:
    """Ranges by an imported cache, or by photos and the table of those seen before."""
    from calib.calibrate import calibrate
    from calib.import_cache import read_cache
    from calib.photos import Skipped, require_enough
    from calib.policy import chosen_layers
    from calib.recipe import WRITERS, tensors_to_observe, writer_for
    from calib.table import Table, TableKey

    graph = graph_model.graph
    if options.import_cache is not None:
        name = writer_for(file.artifact.manifest.target, options.writer)
        chosen = chosen_layers(layers, options.float_stride)
        wanted = [str(v.name) for v in WRITERS[name].place(graph, chosen).ranges]
        largest = read_cache(options.import_cache, wanted)
        return _Calibration(lambda tensor, _: largest[tensor])
    # Of all hidden layers: one table serves every writer and every choice of layers.
    names = tensors_to_observe(graph, [layer for layer in layers if not layer.is_predictor])
    path = options.table or output.with_suffix(".table.json")
    key = TableKey.of(file.artifact, file.sha256, options.method)
    table = Table.load(path, key, names) if path.exists() else Table(key, names)
    skipped = Skipped()
    run = calibrate(
        graph_model, file.artifact, photos, table, path, skipped, advance, options.threads
    )
    require_enough(len(table.photos), skipped)
    return _Calibration(table.largest, run, skipped.reasons)


def _share(
    graph_model: ir.Model,
    artifact: Artifact,
    layers: Sequence[Layer],
    chosen: Sequence[Layer],
    photos: Sequence[Path],
    writer: str,
) -> float | None:
    """Multiply-adds of integer layers by those of all weighted layers, on the first good photo."""
    from calib.count import multiply_adds, shapes_in_a_run
    from calib.photos import Skipped, canvases
    from calib.recipe import WRITERS

    batch = next(canvases(photos, artifact, Skipped()), None)
    if batch is None:
        return None
    names = {str(v.name): None for layer in layers for v in (layer.data, layer.output)}
    shapes = shapes_in_a_run(graph_model, list(names), batch[1])
    placed = WRITERS[writer].place(graph_model.graph, chosen).layers
    integer = sum(multiply_adds(layer, shapes) for layer in placed)
    return integer / sum(multiply_adds(layer, shapes) for layer in layers)


def _describe(graph_model: ir.Model, artifact: Artifact, method: str, writer: str) -> None:
    """The same spec; a manifest that tells the precision and who wrote it."""
    from runtime.artifact import to_metadata

    versions = {**artifact.manifest.versions, "maskport": __version__}
    manifest = replace(artifact.manifest, precision="int8", versions=versions)
    graph_model.metadata_props.update(to_metadata(artifact.spec, manifest))
    graph_model.metadata_props["maskport.quantisation"] = f"{writer} {method}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    return run(_quantize, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport quantize", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an FP32 .onnx file of maskport export")
    parser.add_argument("photos", nargs="*", help="image files, folders or glob patterns")
    parser.add_argument("-o", "--output", type=Path, help="default: the model's name + .int8.onnx")
    parser.add_argument("--format", default="int8", choices=FORMATS, help="default int8")
    parser.add_argument(
        "--method",
        default=DEFAULT_METHOD,
        help="how ranges are chosen: min-max, moving-average, percentile, entropy or mse; "
        "default %(default)s",
    )
    parser.add_argument(
        "--qdq",
        metavar="NAME",
        help="tensorrt or onnxruntime: whose fusions Q/DQ are placed for; default by the target",
    )
    parser.add_argument(
        "--float-stride",
        type=int,
        default=DEFAULT_FLOAT_STRIDE,
        metavar="PX",
        help="layers of the body up to this stride stay in floating point; default %(default)s, "
        "0 for none",
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
    from calib.observers.methods import method_named
    from runtime.sources.photos import find_photos

    method_named(args.method)
    if args.float_stride < 0:
        raise UsageError(f"--float-stride: expected 0 or more pixels, got {args.float_stride}")
    photos = find_photos(args.photos)
    _check_photos(photos, args)
    output = args.output or args.model.with_suffix(".int8.onnx")
    options = QuantizeOptions(
        args.method, args.qdq, args.float_stride, args.table, args.import_cache, args.threads
    )
    bar = Bar(len(photos), "photos")
    report = quantize(args.model, photos, output, options, bar.advance)
    _print_report(report, photos)
    return DONE


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
    print(f"{report.layers} of {report.of_layers} weighted layers in INT8{share}")
    kernels = report.kernels
    total = kernels.integer_convolutions + kernels.float_convolutions
    print(
        f"ONNX Runtime on this CPU: {kernels.integer_convolutions} of {total} convolutions and "
        f"{kernels.integer_products} linear layers are integer kernels"
    )
    if report.writer == "tensorrt":
        print(next_step("engine", report.path))
    else:
        print(next_step("predict", report.path, *photos[:1], "-o", "out"))


if __name__ == "__main__":
    sys.exit(main())
