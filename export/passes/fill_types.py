"""Fill in missing element types of a graph's values."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def fill_types(model: ir.Model) -> bool:
    """Set missing types by ONNX's type inference; returns whether one was missing.

    Shapes stay unchanged: the tracer's shapes contain its own size names.
    """
    missing = [v for node in model.graph for v in node.outputs if v.dtype is None and v.name]
    if not missing:
        return False
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model)).graph.value_info
    types = {info.name: info.type.tensor_type.elem_type for info in inferred}
    for value in missing:
        if types.get(str(value.name)):
            value.dtype = ir.DataType(types[str(value.name)])
    return True
