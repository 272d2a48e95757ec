"""Give every value of a graph its element type, where a pass has left it out."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def fill_types(model: ir.Model) -> bool:
    """Set missing types by ONNX's own inference; answers whether one was missing.

    Shapes are left as they are: those that the tracer wrote hold its own names for sizes.
    """
    missing = [v for node in model.graph for v in node.outputs if v.dtype is None and v.name]
    if not missing:
        return False
    known = onnx.shape_inference.infer_shapes(ir.to_proto(model)).graph.value_info
    types = {info.name: info.type.tensor_type.elem_type for info in known}
    for value in missing:
        if types.get(str(value.name)):
            value.dtype = ir.DataType(types[str(value.name)])
    return True
