"""From the network to an ONNX graph, through `torch.export`; the only file that calls it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
import torch

from export.lowering import standard
from export.passes.compact_masks import compact_masks
from export.passes.tag_roles import tag_roles
from model.errors import ExportError, UsageError
from model.mask_rcnn import MaskRCNN, Outputs

DEFAULT_OPSET = 18
# 18 is what the lowering is written for and what every reader tried so far takes. ONNX
# Runtime 1.31 has no kernel for the RoiAlign of opset 22.
OPSETS = (18, 19, 20, 21)
_TRACE_SIDES = (224, 288)


@dataclass(frozen=True, slots=True)
class GraphShape:
    """What the graph's inputs may be; None is dynamic. Sides are canvas pixels."""

    batch: int | None = None
    height: int | None = None
    width: int | None = None

    def check(self, divisor: int) -> None:
        """Refuse what the network cannot run.

        Raises:
            UsageError: a side that is no multiple of the divisor, or a batch below one.
        """
        for name, side in (("height", self.height), ("width", self.width)):
            if side is not None and (side % divisor or not divisor <= side <= 16384):
                raise UsageError(
                    f"--size: {name} {side} must be a multiple of {divisor} from {divisor} to "
                    f"16384, for instance {min(max(-(-side // divisor), 1) * divisor, 16384)}"
                )
        if self.batch is not None and not 1 <= self.batch <= 1024:
            raise UsageError(f"--batch: expected 1 to 1024, got {self.batch}")


def trace(model: MaskRCNN, shape: GraphShape, opset: int = DEFAULT_OPSET) -> ir.Model:
    """Write the network as ONNX with the `standard` lowering.

    Args:
        model: in eval mode.
        shape: fixed or dynamic batch, height and width.
        opset: one of `OPSETS`.

    Returns:
        a graph with roles on its nodes, the outputs of `model.mask_rcnn.Outputs` under their
        names, and the mask head running on valid rows only.

    Raises:
        ExportError: the tracer failed.
    """
    has_masks = model.mask_head is not None
    divisor = model.spec.preprocess.size_divisor
    names = [n for n in Outputs._fields if n != "masks" or has_masks]
    with _quiet():
        try:
            program = torch.onnx.export(
                model,
                _example(divisor),
                dynamo=True,
                dynamic_shapes=_dynamic_shapes(divisor),
                opset_version=opset,
                custom_translation_table=standard.translations(),
                input_names=["images", "image_hw"],
                output_names=names,
                optimize=True,
                verbose=False,
            )
        except Exception as error:  # the exporter wraps anything at all
            raise ExportError(f"tracing failed: {_innermost(error)}") from error
    if program is None:
        raise ExportError("tracing failed: the exporter answered no program")
    graph_model = program.model
    tag_roles(graph_model, frozenset(name for name, _ in model.named_children()))
    compact_masks(graph_model)
    _declare_shapes(graph_model, model, shape)
    return graph_model


def _example(divisor: int) -> tuple[torch.Tensor, torch.Tensor]:
    # Sizes of 1 would be specialised by the tracer, hence two images.
    height, width = (-(-side // divisor) * divisor for side in _TRACE_SIDES)
    return torch.zeros(2, 3, height, width), torch.tensor([[float(height), float(width)]] * 2)


def _dynamic_shapes(divisor: int) -> dict[str, dict[int, object]]:
    """All dynamic: fixed sizes are declared afterwards, and readers fold what follows from them."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    height = divisor * torch.export.Dim("rows", min=1, max=16384 // divisor)
    width = divisor * torch.export.Dim("columns", min=1, max=16384 // divisor)
    return {"images": {0: batch, 2: height, 3: width}, "image_hw": {0: batch}}


def _declare_shapes(graph_model: ir.Model, model: MaskRCNN, shape: GraphShape) -> None:
    """Fixed sizes or plain names for the sides, and no stale shapes inside."""
    batch: int | str = shape.batch or "batch"
    rows = model.spec.box.detections
    for node in graph_model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    images, image_hw = graph_model.graph.inputs
    images.shape = ir.Shape([batch, 3, shape.height or "height", shape.width or "width"])
    image_hw.shape = ir.Shape([batch, 2])
    for value in graph_model.graph.outputs:
        trailing: list[int] = []
        if value.name in ("boxes", "scores", "labels", "masks"):
            trailing = [rows]
        if value.name == "boxes":
            trailing.append(4)
        if value.name == "masks" and model.spec.mask is not None:
            trailing += [model.spec.mask.side] * 2
        value.shape = ir.Shape([batch, *trailing])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Third parties' warnings and chatter are not the user's business unless it fails."""
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


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
