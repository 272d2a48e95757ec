"""Convert to opset 22, the first with BF16 convolutions."""

from __future__ import annotations

import onnx_ir as ir

from model.errors import ExportError

OPSET = 22
_GRID_SAMPLE_RENAMED = 20
_MODES = {"bilinear": "linear", "bicubic": "cubic"}
# Their definition changed between opsets 18 and 22.
_UNSUPPORTED = ("GroupNormalization",)


def opset_22(model: ir.Model) -> bool:
    """Convert a graph of opset 18 to 21; returns whether it was one.

    1. GridSample's modes were renamed in opset 20.
    2. For every other operator of our graphs, only supported types were added.

    Raises:
        ExportError: an operator whose definition changed.
    """
    before = model.graph.opset_imports[""]
    if before >= OPSET:
        return False
    for node in model.graph.all_nodes():
        if node.op_type in _UNSUPPORTED:
            raise ExportError(
                f"{node.op_type} '{node.name}': its definition changed in opset 22; export with "
                "--precision fp16 or fp32"
            )
        if node.op_type == "GridSample" and before < _GRID_SAMPLE_RENAMED:
            mode = node.attributes.get_string("mode", "bilinear")
            node.attributes.add(ir.AttrString("mode", _MODES.get(mode, mode)))
    model.graph.opset_imports[""] = OPSET
    return True
