"""From the network to an ONNX graph, through `torch.export`; the only file that calls it."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.optimizer import fold_constants, remove_unused_nodes

from export.lowering import native, standard
from export.passes.compact_heads import compact_heads
from export.passes.drop_padding import drop_padding
from export.passes.narrow_integers import narrow_integers
from export.passes.products_without_gemm import products_without_gemm
from export.passes.split_top_k import split_top_k
from export.roles import tag_roles
from model.errors import ExportError, UsageError, in_brief
from model.mask_rcnn import MaskRCNN, Outputs
from model.native.options import NativeOptions
from model.spec import ModuleBodySpec, PreprocessSpec

DEFAULT_OPSET = 18
# The lowerings are written for 18, and all tested readers support it. ONNX Runtime 1.31 has no
# RoiAlign kernel for opset 22.
OPSETS = (18, 19, 20, 21)
_TRACE_SIDES = (224, 288)

Pass = Callable[[ir.Model], bool]
NATIVE_PASSES: tuple[Pass, ...] = (
    drop_padding,
    split_top_k,
    narrow_integers,
    products_without_gemm,
)


@dataclass(frozen=True, slots=True)
class GraphShape:
    """The sizes of the graph's inputs; None is dynamic. Sides are in canvas pixels.

    `batch_range` is the minimum, optimum and maximum batch, instead of a fixed one.
    """

    batch: int | None = None
    height: int | None = None
    width: int | None = None
    batch_range: tuple[int, int, int] | None = None

    @property
    def largest_batch(self) -> int | None:
        """The maximum number of images of one run; None: no limit."""
        return self.batch if self.batch_range is None else self.batch_range[2]

    def on_fixed_canvas(self, spec: PreprocessSpec) -> GraphShape:
        """With the sides of the model's canvas, if it resizes every photo to one size."""
        canvas_hw = spec.fixed_canvas_hw if spec.fixed_hw is not None else None
        if canvas_hw is None or self.height is not None or self.width is not None:
            return self
        return replace(self, height=canvas_hw[0], width=canvas_hw[1])

    def check(self, spec: PreprocessSpec) -> None:
        """Check the sizes against the preprocessing.

        Raises:
            UsageError: a side that is not a multiple of the divisor, a canvas other than the
                spec's square, or a batch out of range.
        """
        divisor, square = spec.size_divisor, spec.long_side
        if spec.square and not {self.height, self.width} <= {None, square}:
            raise UsageError(
                f"--size {self.height}x{self.width}: this model's canvas is always square, "
                f"{square}x{square}; use that, or another --long-side"
            )
        if spec.fixed_hw is not None and spec.fixed_canvas_hw is not None:
            least = spec.fixed_canvas_hw
            if (self.height or least[0]) < least[0] or (self.width or least[1]) < least[1]:
                raise UsageError(
                    f"--size {self.height}x{self.width}: this model resizes every photo to "
                    f"{spec.fixed_hw[0]}x{spec.fixed_hw[1]}; use at least {least[0]}x{least[1]}"
                )
        for name, side in (("height", self.height), ("width", self.width)):
            if side is not None and (side % divisor or not divisor <= side <= 16384):
                raise UsageError(
                    f"--size: {name}: expected a multiple of {divisor} from {divisor} to 16384, "
                    f"got {side}; for instance {min(max(spec.canvas_side(side), divisor), 16384)}"
                )
        for batch in self.batch_range or (self.batch,):
            if batch is not None and not 1 <= batch <= 1024:
                raise UsageError(f"--batch: expected 1 to 1024, got {batch}")
        if self.batch_range is not None and list(self.batch_range) != sorted(self.batch_range):
            raise UsageError(
                f"--batch: expected MIN:OPT:MAX in ascending order, like 1:4:8, got "
                f"{':'.join(map(str, self.batch_range))}"
            )


def trace(
    model: MaskRCNN,
    shape: GraphShape,
    opset: int = DEFAULT_OPSET,
    native_options: NativeOptions | None = None,
    native_passes: Sequence[Pass] = NATIVE_PASSES,
) -> ir.Model:
    """Export the network to an ONNX graph.

    Args:
        model: in eval mode.
        shape: fixed or dynamic batch, height and width.
        opset: one of `OPSETS`.
        native_options: None for the `standard` lowering; else `native`, which needs fixed sides
            and a batch that is fixed or a range.
        native_passes: rewrites of a `native` graph; fewer only for measurements.

    Returns:
        a graph with roles on its nodes and the outputs of `model.mask_rcnn.Outputs` under their
        names.

    Raises:
        ExportError: the tracer failed, or the lowering cannot express the network.
    """
    if native_options is None:
        graph_model = _standard(model, shape, opset)
    else:
        graph_model = _native(model, shape, opset, native_options, native_passes)
    _declare_shapes(graph_model, model, shape)
    return graph_model


def _standard(model: MaskRCNN, shape: GraphShape, opset: int) -> ir.Model:
    """Trace with dynamic sizes; fixed ones are declared afterwards, and readers fold them.

    A body of the user may need the sides that the file will have, so they are fixed in its trace.
    """
    spec = model.spec.preprocess
    divisor = spec.size_divisor
    # The tracer would specialize on a size of 1, hence two images.
    height, width = map(spec.canvas_side, _TRACE_SIDES)
    batch = torch.export.Dim("batch", min=1, max=1024)
    sides: dict[int, Any] = {
        2: divisor * torch.export.Dim("rows", min=1, max=16384 // divisor),
        3: divisor * torch.export.Dim("columns", min=1, max=16384 // divisor),
    }
    is_fixed = isinstance(model.spec.body, ModuleBodySpec) and None not in (
        shape.height,
        shape.width,
    )
    if is_fixed:
        height, width, sides = shape.height or height, shape.width or width, {}
    dynamic = {"images": {0: batch, **sides}, "image_hw": {0: batch}}
    table = standard.translations()
    example = _example(2, model.spec.preprocess.channels, height, width)
    graph_model = _run_tracer(model, example, dynamic, opset, table)
    compact_heads(graph_model)
    # The tracer's shapes contain its own size names.
    for node in graph_model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    return graph_model


def _native(
    model: MaskRCNN, shape: GraphShape, opset: int, options: NativeOptions, passes: Sequence[Pass]
) -> ir.Model:
    """Trace with the final sizes."""
    if shape.height is None or shape.width is None or shape.largest_batch is None:
        raise ExportError("native lowering: expected a fixed canvas and batch; add --size HxW")
    dynamic = None
    if shape.batch_range is not None:
        batch = torch.export.Dim("batch", min=shape.batch_range[0], max=shape.batch_range[2])
        dynamic = {"images": {0: batch}, "image_hw": {0: batch}}
    channels = model.spec.preprocess.channels
    example = _example(shape.batch or shape.largest_batch, channels, shape.height, shape.width)
    table = native.translations(options, shape.largest_batch)
    graph_model = _run_tracer(model, example, dynamic, opset, table)
    for rewrite in passes:
        rewrite(graph_model)
    fold_constants(graph_model, input_size_limit=2**24, output_size_limit=2**24)
    remove_unused_nodes(graph_model)
    return graph_model


def _example(
    batch: int, channels: int, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.zeros(1, channels, height, width).expand(batch, -1, -1, -1),
        torch.tensor([[float(height), float(width)]] * batch),
    )


def _run_tracer(
    model: MaskRCNN,
    example: tuple[torch.Tensor, torch.Tensor],
    dynamic_shapes: dict[str, dict[int, Any]] | None,
    opset: int,
    table: dict[Callable[..., Any], Callable[..., Any]],
) -> ir.Model:
    absent = set()
    if model.mask_head is None:
        absent.add("masks")
    if model.keypoint_head is None:
        absent.add("keypoint_heatmaps")
    names = [n for n in Outputs._fields if n not in absent]
    with _quiet(), _fast():
        try:
            program = torch.onnx.export(
                model,
                example,
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                opset_version=opset,
                custom_translation_table=table,
                input_names=["images", "image_hw"],
                output_names=names,
                optimize=True,
                verbose=False,
            )
        except Exception as error:  # the exporter wraps any exception
            has_body = isinstance(model.spec.body, ModuleBodySpec)
            raise _explain(error, has_body and _has_dynamic_sides(dynamic_shapes)) from error
    if program is None:
        raise ExportError("tracing failed: expected a program of torch.onnx.export, got none")
    graph_model = program.model
    tag_roles(graph_model, frozenset(name for name, _ in model.named_children()))
    return graph_model


def _declare_shapes(graph_model: ir.Model, model: MaskRCNN, shape: GraphShape) -> None:
    """Set fixed sizes, or names for dynamic ones, on the graph's inputs and outputs."""
    batch: int | str = shape.batch or "batch"
    rows, spec = model.spec.box.detections, model.spec
    trailing_of: dict[str, list[int]] = {
        "boxes": [rows, 4],
        "scores": [rows],
        "labels": [rows],
        "masks": [rows, spec.mask_side, spec.mask_side],
    }
    if spec.keypoint is not None:
        side = spec.keypoint.side
        trailing_of["keypoint_heatmaps"] = [rows, len(spec.keypoint.names), side, side]
    images, image_hw = graph_model.graph.inputs
    channels = spec.preprocess.channels
    images.shape = ir.Shape([batch, channels, shape.height or "height", shape.width or "width"])
    image_hw.shape = ir.Shape([batch, 2])
    for value in graph_model.graph.outputs:
        value.shape = ir.Shape([batch, *trailing_of.get(value.name or "", [])])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and messages of other libraries; errors are raised."""
    logger = logging.getLogger("torch.onnx")
    level, logger_level = logging.root.manager.disable, logger.level
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)
            logger.setLevel(logger_level)


@contextlib.contextmanager
def _fast() -> Iterator[None]:
    """Disable garbage collection and the tracer's shape cache during a trace.

    The tracer allocates millions of small objects that live until its end, so collections find
    nothing; the shape cache costs more than it saves, because every layer has other shapes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
            yield
    finally:
        if was_enabled:
            gc.enable()


def _has_dynamic_sides(dynamic_shapes: dict[str, dict[int, Any]] | None) -> bool:
    return dynamic_shapes is not None and 2 in dynamic_shapes["images"]


def _explain(error: BaseException, may_need_size: bool) -> ExportError:
    """The error of a lowering, or the innermost of the tracer's wrapped errors."""
    while error.__cause__ is not None and not isinstance(error, ExportError):
        error = error.__cause__
    if isinstance(error, ExportError):
        return error
    remedy = "check that pyproject.toml allows the installed torch"
    if may_need_size:
        remedy = "the model's own backbone may need a fixed canvas; export with --size HxW"
    message = in_brief(error, 300)
    return ExportError(f"tracing failed: {type(error).__name__}: {message}; {remedy}")
