"""Convert integer arithmetic from int64 to int32.

ONNX requires int64 for shapes and TopK's indices, and PyTorch uses it everywhere. On a GPU an int64
index costs two registers and a conversion; all indices of the network are far below 2^31.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.roles import ROLE_KEY, role_of

# The data inputs of each operator; the others are shapes, axes and counts, which stay int64.
_ALL = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_DATA_INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Concat", "Where"), _ALL),
    **dict.fromkeys(("Equal", "Less", "Greater", "Clip", "GatherElements", "Identity"), _ALL),
    **dict.fromkeys(("LessOrEqual", "GreaterOrEqual", "Gather", "GatherND"), _ALL),
    **dict.fromkeys(("Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose", "Slice"), (0,)),
    **dict.fromkeys(("ReduceSum", "ReduceMax", "ReduceMin", "Split", "Cast"), (0,)),
}


def narrow_integers(model: ir.Model) -> bool:
    """Rewrite the graph; returns whether it changed.

    1. The indices of a TopK are cast to int32.
    2. A cast to int64 becomes a cast to int32.
    3. An operator of the table with a narrowed data input also narrows its other int64 data inputs
       (constants are converted) and its output.
    4. For any other operator the input is cast back to int64.
    5. A cast from int32 to int32 is removed.
    """
    graph = model.graph
    narrowed: set[ir.Value] = set()
    for node in list(graph):
        if node.op_type == "TopK":
            _follow(node, graph, narrowed)
            _cast_indices(node, graph, narrowed)
        elif node.op_type == "Cast" and _makes_int64(node):
            node.attributes.add(ir.AttrInt64("to", ir.DataType.INT32))
            _narrow_outputs(node, narrowed)
        elif any(value in narrowed for value in node.inputs if value is not None):
            _follow(node, graph, narrowed)
    for node in list(graph):
        _drop_idle_cast(node)
    return bool(narrowed)


def _makes_int64(node: ir.Node) -> bool:
    return node.attributes.get_int("to", 0) == ir.DataType.INT64 and not _is_shape(node.inputs[0])


def _is_shape(value: ir.Value | None) -> bool:
    """Whether a value is the shape or size of a tensor."""
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type in ("Shape", "Size")


def _cast_indices(node: ir.Node, graph: ir.Graph, narrowed: set[ir.Value]) -> None:
    indices = node.outputs[1]
    users = list(indices.uses())
    if not users:
        return
    cast = _new_cast(indices, ir.DataType.INT32, role_of(node))
    graph.insert_after(node, cast)
    for user, position in users:
        user.replace_input_with(position, cast.outputs[0])
    narrowed.add(cast.outputs[0])


def _follow(node: ir.Node, graph: ir.Graph, narrowed: set[ir.Value]) -> None:
    data = _DATA_INPUTS.get(node.op_type, ())
    for position, value in enumerate(node.inputs):
        if value is None:
            continue
        if position in data:
            if value not in narrowed and value.dtype == ir.DataType.INT64:
                node.replace_input_with(position, _as_int32(value, node, graph))
        elif value in narrowed:
            cast = _new_cast(value, ir.DataType.INT64, role_of(node))
            graph.insert_before(node, cast)
            node.replace_input_with(position, cast.outputs[0])
    # An operator outside the table keeps int64 inputs and outputs.
    if data and node.op_type != "Cast":
        _narrow_outputs(node, narrowed)


def _narrow_outputs(node: ir.Node, narrowed: set[ir.Value]) -> None:
    for value in node.outputs:
        if value.dtype == ir.DataType.INT64:
            value.dtype = ir.DataType.INT32
            narrowed.add(value)


def _as_int32(value: ir.Value, node: ir.Node, graph: ir.Graph) -> ir.Value:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        narrow = _new_cast(value, ir.DataType.INT32, role_of(node))
    else:
        numbers = tensor.numpy()
        limits = np.iinfo(np.int32)
        clipped = np.clip(numbers, limits.min, limits.max).astype(np.int32)
        narrow = ir.node("Constant", [], {"value": ir.tensor(clipped)})
        narrow.metadata_props[ROLE_KEY] = role_of(node)
        narrow.outputs[0].dtype = ir.DataType.INT32
        narrow.outputs[0].shape = ir.Shape(numbers.shape)
    graph.insert_before(node, narrow)
    return narrow.outputs[0]


def _new_cast(value: ir.Value, dtype: ir.DataType, role: str) -> ir.Node:
    cast = ir.node("Cast", [value], {"to": dtype})
    cast.metadata_props[ROLE_KEY] = role
    cast.outputs[0].dtype = dtype
    cast.outputs[0].shape = value.shape
    return cast


def _drop_idle_cast(node: ir.Node) -> None:
    value = node.inputs[0] if node.op_type == "Cast" else None
    if value is None or value.dtype != node.attributes.get_int("to", 0):
        return
    if value.dtype == ir.DataType.INT32 and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(value)
