"""`maskport export`: export a checkpoint to ONNX and check the file against the eager model.

python -m export.onnx weights.pth -o model.onnx
python -m export.onnx weights.pth --target tensorrt-rtx --size 800x1344 -o model.rtx.onnx
python -m export.onnx weights.pth … --precision fp16
python -m export.onnx weights.pth --model build.py:make -o model.onnx
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from export.cli_spec_options import add_spec_arguments, model_builder
from export.onnx_report import ExportReport, print_report
from export.targets import TARGETS, Target, landscape_hw, native_candidates, target_named
from maskport import __version__
from model.errors import UsageError, require_one_of
from runtime.cli.console import DONE, Parser, Steps, require_packages, run, whole_number
from runtime.cli.spec_options import spec_options
from runtime.files import atomic_path, refuse_overwrite

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir as ir
    from torch import nn

    from export.passes.half_precision import HalfReport
    from export.tracing import GraphShape
    from model.checkpoint import SpecOptions
    from model.live.builder import Builder
    from model.live.source import AnyModel
    from model.native.options import NativeOptions
    from model.spec import ModelSpec

SAMPLE_PHOTO = Path(__file__).resolve().parent / "data" / "shapes.jpg"


def export_onnx(
    weights: str | Path | nn.Module | None,
    output: str | Path,
    options: SpecOptions | None = None,
    shape: GraphShape | None = None,
    opset: int | None = None,
    check_photo: str | Path | None = SAMPLE_PHOTO,
    steps: Steps | None = None,
    target: str = "onnxruntime",
    native_options: NativeOptions | None = None,
    config: Path | None = None,
    precision: str = "fp32",
    builder: Builder | None = None,
) -> ExportReport:
    """Export a live model or a checkpoint to ONNX.

    Args:
        weights: a module of torchvision's `GeneralizedRCNN` family, or a file that
            `model.checkpoint.load` reads; None with a builder whose module has its weights.
        output: the ONNX file; not written if anything fails.
        options: spec fields that the checkpoint does not hold; of a live model, thresholds, sides
            and class names.
        shape: fixed sizes; dynamic by default, which TensorRT targets do not accept.
        opset: ONNX opset, default 18; a BF16 file always has opset 22.
        check_photo: photo on which the file is compared with the eager model; None: no check.
        steps: progress display.
        target: "onnxruntime", "tensorrt" or "tensorrt-rtx"; selects the lowering.
        native_options: limits of the `native` lowering.
        config: the framework's own configuration of the model; see `model.checkpoint.load`.
        precision: "fp32", "fp16" or "bf16"; half precision is checked by the emulator, on the
            same photo.
        builder: the user's code that builds the model; it runs, and `weights` are loaded into it.

    Raises:
        ModelError: a live model that cannot be exported, with the part and what to do.
        UsageError: an invalid option, or an output that would overwrite an input.
        CheckpointError: the weights cannot be read, or their format is unknown.
        ExportError: tracing failed, or the file differs from the eager model beyond the limits.
        ArtifactError: the output cannot be written.
    """
    from export.cli_graph_options import checked_opset
    from export.parity.check import check_file
    from export.precision.check import check_half
    from export.precision.formats import PRECISIONS
    from export.tracing import GraphShape, trace
    from model.live.source import open_model
    from model.native.options import NativeOptions

    begin_step = steps.begin if steps else lambda _: None
    destination = target_named(target)
    require_one_of("--precision", precision, PRECISIONS)
    output, shape, opset = Path(output), shape or GraphShape(), checked_opset(opset, precision)
    path = Path(weights) if isinstance(weights, str | os.PathLike) else None
    refuse_overwrite(output, path, check_photo, config)
    if check_photo is not None and not os.path.isfile(check_photo):  # a pipe could block forever
        raise UsageError(f"--check-image {check_photo}: no such file; expected a photo")
    begin_step("reading the model" if path is None else "reading the weights")
    canvas_hw = None
    if shape.height is not None and shape.width is not None:
        canvas_hw = shape.height, shape.width
    checkpoint = open_model(weights, options, config, builder, canvas_hw)
    shape = shape.on_fixed_canvas(checkpoint.spec.preprocess)
    shape.check(checkpoint.spec.preprocess)
    photo = None
    if check_photo is not None:
        photo = _decode(Path(check_photo), checkpoint.spec.preprocess.channels)
    native = None
    if destination.lowering == "native":
        checkpoint = _for_native(checkpoint, options, shape)
        native = native_options or NativeOptions()
    # Opened before the trace, so that an unwritable output fails at once.
    with atomic_path(output) as temporary:
        if output.suffix.lower() != ".onnx":
            raise UsageError(f"-o {output}: expected a name that ends in .onnx")
        begin_step("tracing the network")
        graph = trace(checkpoint.build(), shape, opset, native)
        begin_step("writing the file")
        _write(graph, temporary, checkpoint, shape, destination)
        report = None
        if photo is not None:
            begin_step("checking it against the eager model")
            report = check_file(checkpoint, temporary, photo, Path(str(check_photo)).name)
        half = half_check = None
        if precision != "fp32":
            begin_step(f"converting it to {precision}")
            half = _to_half(graph, precision)
            _write(graph, temporary, checkpoint, shape, destination, precision)
            if photo is not None and report is not None:
                begin_step("checking the result under emulation")
                half_check = check_half(temporary, photo, report, half.half)
    size = output.stat().st_size
    return ExportReport(output, checkpoint, size, report, native, half, half_check)


def _to_half(graph: ir.Model, precision: str) -> HalfReport:
    from export.passes.half_precision import half_precision
    from export.passes.opset_22 import opset_22
    from export.precision.formats import BF16, FORMATS

    report = half_precision(graph, FORMATS[precision])
    if report.half is BF16:
        opset_22(graph)
    return report


def _for_native(checkpoint: AnyModel, options: SpecOptions | None, shape: GraphShape) -> AnyModel:
    """Replace the number of candidates by the lowering's default, unless the user set one."""
    from model.spec_options import is_set

    _require_fixed(checkpoint.spec, shape)
    spec = checkpoint.spec
    if options is None or not is_set("box.candidates", options):
        spec = replace(spec, box=replace(spec.box, candidates=native_candidates(spec)))
    return replace(checkpoint, spec=spec)


def _require_fixed(spec: ModelSpec, shape: GraphShape) -> None:
    if shape.height is None or shape.width is None:
        if spec.preprocess.square:
            side = spec.preprocess.long_side
            raise UsageError(f"--size: TensorRT needs a fixed canvas; add --size {side}x{side}")
        short, long = landscape_hw(spec.preprocess)
        raise UsageError(
            f"--size: TensorRT needs a fixed canvas; add --size {short}x{long} for landscape "
            f"photos or --size {long}x{short} for portrait ones, or export a file for each"
        )
    if shape.largest_batch is None:
        raise UsageError("--batch: expected a fixed batch or a range for TensorRT, like 1 or 1:4:8")


def _decode(path: Path, channels: int) -> npt.NDArray[np.uint8]:
    """A photo of as many channels as the model takes; the sample photo's own are repeated."""
    from runtime.sources.photos import decode, decode_as
    from runtime.sources.pixel_format import PixelFormat, to_bytes

    if path == SAMPLE_PHOTO:
        return decode(path)[:, :, [index % 3 for index in range(channels)]]
    form = PixelFormat(channels)
    return to_bytes(form.scaled(decode_as(path, form)))


def _write(
    graph: ir.Model,
    path: Path,
    checkpoint: AnyModel,
    shape: GraphShape,
    target: Target,
    precision: str = "fp32",
) -> None:
    import onnx
    import onnx_ir as ir

    from runtime.artifacts.checksum import append_checksum
    from runtime.artifacts.metadata import Manifest, to_metadata

    manifest = Manifest(
        target=target.name,
        lowering=target.lowering,
        precision=precision,
        weights_sha256=checkpoint.sha256,
        batch=shape.batch,
        height=shape.height,
        width=shape.width,
        batch_range=shape.batch_range,
        versions={
            "maskport": __version__,
            **{p: metadata.version(p) for p in ("torch", "torchvision", "onnx", "onnxscript")},
        },
    )
    graph.producer_name, graph.producer_version = "maskport", __version__
    graph.graph.name = checkpoint.spec.architecture
    graph.metadata_props.update(to_metadata(checkpoint.spec, manifest))
    # Older runtimes refuse a newer version of the format, even if they have all operators.
    opsets = [onnx.helper.make_opsetid(*opset) for opset in graph.graph.opset_imports.items()]
    graph.ir_version = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    ir.save(graph, path)
    onnx.checker.check_model(str(path))
    append_checksum(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_export, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport export", description=__doc__.splitlines()[0])
    parser.add_argument(
        "weights",
        type=Path,
        nargs="?",
        help="weights: .pth, .safetensors, .pkl, .h5; not needed if the code of --model loads them",
    )
    parser.add_argument("-o", "--output", type=Path, help="default: WEIGHTS with suffix .onnx")
    graph = parser.add_argument_group("graph")
    graph.add_argument(
        "--target",
        default="onnxruntime",
        metavar="NAME",
        help=f"runtime that will run the file: {', '.join(TARGETS)}; default: onnxruntime",
    )
    graph.add_argument(
        "--size",
        metavar="HxW",
        help="fixed canvas, to which photos are resized; default: dynamic; required for TensorRT",
    )
    graph.add_argument(
        "--batch",
        metavar="N|MIN:OPT:MAX",
        help="fixed batch, or a range for TensorRT; default: dynamic, for TensorRT 1",
    )
    graph.add_argument(
        "--precision",
        default="fp32",
        metavar="NAME",
        help="data type of the heavy layers: fp32, fp16 or bf16; default: fp32",
    )
    graph.add_argument("--opset", type=int, help="ONNX opset; default: 18, for bf16 22")
    graph.add_argument(
        "--nms-rounds",
        metavar="R[,D]",
        help="TensorRT: NMS iterations for proposals and detections; default: 64,20",
    )
    graph.add_argument(
        "--max-sampling",
        type=whole_number,
        metavar="M",
        help="TensorRT, adaptive pooling: M x M samples per bin; default: enough for any RoI",
    )
    add_spec_arguments(parser)
    check = parser.add_argument_group("check")
    check.add_argument(
        "--check-image",
        type=Path,
        default=SAMPLE_PHOTO,
        help="photo for the check; default: a sample",
    )
    check.add_argument("--no-check", action="store_true", help="skip the check")
    return parser


def _export(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    require_packages("export", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime")
    weights, builder = args.weights, model_builder(args)
    if weights is None and (builder is None or args.output is None):
        raise UsageError("expected a weights file, or --model with the code of the model and -o")
    if weights is not None and not weights.name:
        raise UsageError(f"{weights}: expected a weights file")
    from export.cli_graph_options import graph_shape, native_options

    target = target_named(args.target)
    output = args.output or weights.with_suffix(target.suffix)
    checks, conversions = int(not args.no_check), int(args.precision != "fp32")
    steps = Steps(3 + checks + conversions * (1 + checks))
    report = export_onnx(
        weights,
        output,
        spec_options(args),
        graph_shape(args.size, args.batch, target),
        args.opset,
        None if args.no_check else args.check_image,
        steps,
        target.name,
        native_options(args.nms_rounds, target, args.max_sampling),
        args.config,
        args.precision,
        builder,
    )
    steps.end()
    print_report(report, args)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
