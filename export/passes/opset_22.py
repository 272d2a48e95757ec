"""Declare operator set 22, the first whose convolutions take BF16."""

from __future__ import annotations

import onnx_ir as ir

from model.errors import ExportError

OPSET = 22
_GRID_SAMPLE_RENAMED = 20
_MODES = {"bilinear": "linear", "bicubic": "cubic"}
# Their meaning changed between 18 and 22.
_REFUSED = ("GroupNormalization",)


def opset_22(model: ir.Model) -> bool:
    """Rewrite a graph of operator set 18 to 21; answers whether it was one.

    1. GridSample's modes have other names since 20.
    2. Every other operator of ours means in 22 what it meant in 18: only types were added.

    Raises:
        ExportError: an operator whose meaning changed.
    """
    before = model.graph.opset_imports[""]
    if before >= OPSET:
        return False
    for node in model.graph.all_nodes():
        if node.op_type in _REFUSED:
            raise ExportError(
                f"{node.op_type} '{node.name}': means something else in opset 22; export for onnx"
            )
        if node.op_type == "GridSample" and before < _GRID_SAMPLE_RENAMED:
            mode = node.attributes.get_string("mode", "bilinear")
            node.attributes.add(ir.AttrString("mode", _MODES.get(mode, mode)))
    model.graph.opset_imports[""] = OPSET
    return True
