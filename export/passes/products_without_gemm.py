"""Write float products with weights as convolutions, and single-row products as sums.

TensorRT-RTX has no float32 matrix product on Turing (sm75) but float32 convolutions everywhere. A
linear layer is a convolution of 1 x 1 over a picture of 1 x 1; the numbers are the same.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.roles import ROLE_KEY, role_of


def products_without_gemm(model: ir.Model) -> bool:
    """Rewrite the graph; answers whether there was anything to rewrite.

    1. Gemm(x [M, K], W [N, K], b) with constant W and transB becomes Reshape to [M, K, 1, 1],
       Conv with W as [N, K, 1, 1], Reshape to [M, N].
    2. MatMul(x [R, 1, K], y [R, K, S]) in float32 becomes the sum over K of y times x as
       [R, K, 1]: one row needs no matrix product. NMS's products in half precision stay.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type == "Gemm" and _is_linear(node):
            _as_convolution(node, model.graph)
            changed = True
        elif node.op_type == "MatMul" and _is_single_row(node):
            _as_sum(node, model.graph)
            changed = True
    return changed


def _is_linear(node: ir.Node) -> bool:
    plain = node.attributes.get_float("alpha", 1.0) == node.attributes.get_float("beta", 1.0) == 1.0
    is_transposed = node.attributes.get_int("transB", 0) == 1
    weights = node.inputs[1]
    is_constant = weights is not None and weights.const_value is not None
    return plain and is_transposed and is_constant and not node.attributes.get_int("transA", 0)


def _as_convolution(node: ir.Node, graph: ir.Graph) -> None:
    x, weights = node.inputs[0], node.inputs[1]
    assert weights is not None
    assert weights.const_value is not None
    values = weights.const_value.numpy()
    kernel = ir.Value(
        name=weights.name,
        shape=ir.Shape([*values.shape, 1, 1]),
        type=weights.type,
        const_value=ir.tensor(values[:, :, None, None], name=weights.name),
    )
    picture = _add(node, graph, "Reshape", [x, _ints(node, graph, -1, values.shape[1], 1, 1)])
    inputs = [picture, kernel, *node.inputs[2:]]
    answer = _add(node, graph, "Conv", inputs)
    _replace(
        node, graph, _add(node, graph, "Reshape", [answer, _ints(node, graph, -1, len(values))])
    )
    if not weights.uses():
        graph.initializers.pop(str(weights.name))
    graph.initializers[str(kernel.name)] = kernel


def _is_single_row(node: ir.Node) -> bool:
    x, y = node.inputs[0], node.inputs[1]
    if x is None or y is None or x.shape is None or y.shape is None:
        return False
    is_float = x.dtype == ir.DataType.FLOAT
    return is_float and len(x.shape) == 3 and len(y.shape) == 3 and x.shape[1] == 1


def _as_sum(node: ir.Node, graph: ir.Graph) -> None:
    x, y = node.inputs[0], node.inputs[1]
    column = _add(node, graph, "Transpose", [x], perm=[0, 2, 1])
    product = _add(node, graph, "Mul", [y, column])
    _replace(node, graph, _add(node, graph, "ReduceSum", [product, _ints(node, graph, 1)]))


def _add(
    before: ir.Node, graph: ir.Graph, op: str, inputs: list[ir.Value | None], **attributes: object
) -> ir.Value:
    node = ir.node(op, inputs, attributes)  # type: ignore[arg-type]
    node.metadata_props[ROLE_KEY] = role_of(before)
    if before.outputs[0].dtype is not None:
        node.outputs[0].dtype = before.outputs[0].dtype
    graph.insert_before(before, node)
    return node.outputs[0]


def _ints(before: ir.Node, graph: ir.Graph, *values: int) -> ir.Value:
    tensor = ir.tensor(np.array(values, np.int64))
    node = ir.node("Constant", [], {"value": tensor})
    node.metadata_props[ROLE_KEY] = role_of(before)
    node.outputs[0].dtype = ir.DataType.INT64
    node.outputs[0].shape = ir.Shape([len(values)])
    graph.insert_before(before, node)
    return node.outputs[0]


def _replace(node: ir.Node, graph: ir.Graph, answer: ir.Value) -> None:
    answer.shape = node.outputs[0].shape
    node.outputs[0].replace_all_uses_with(answer)
    graph.remove(node, safe=True)
