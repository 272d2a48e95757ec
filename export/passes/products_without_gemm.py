"""Replace float products with weights by convolutions, and single-row products by sums.

TensorRT-RTX has no float32 matrix product on Turing (sm75), but float32 convolutions everywhere. A
linear layer is a 1 x 1 convolution over a 1 x 1 image, with the same values.
"""

from __future__ import annotations

import onnx_ir as ir

from export.passes.nodes import NodeBuilder
from export.roles import role_of


def products_without_gemm(model: ir.Model) -> bool:
    """Rewrite the graph; returns whether it changed.

    1. Gemm(x [M, K], W [N, K], b) with constant W and transB becomes Reshape to [M, K, 1, 1],
       Conv with W as [N, K, 1, 1], Reshape to [M, N].
    2. MatMul(x [R, 1, K], y [R, K, S]) in float32 becomes the sum over K of y times x as
       [R, K, 1]. NMS's products in half precision stay.
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
    weights = node.inputs[1]
    assert weights is not None
    assert weights.const_value is not None
    values = weights.const_value.numpy()
    kernel = ir.Value(
        name=weights.name,
        shape=ir.Shape([*values.shape, 1, 1]),
        type=weights.type,
        const_value=ir.tensor(values[:, :, None, None], name=weights.name),
    )
    build = _builder(node)
    image = build.add("Reshape", node.inputs[0], build.constant([-1, values.shape[1], 1, 1]))
    output = build.add("Conv", image, kernel, *node.inputs[2:])
    build.add("Reshape", output, build.constant([-1, len(values)]))
    _replace(node, graph, build)
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
    build = _builder(node)
    column = build.add("Transpose", node.inputs[0], perm=[0, 2, 1])
    product = build.add("Mul", node.inputs[1], column)
    build.add("ReduceSum", product, build.constant([1]))
    _replace(node, graph, build)


def _builder(node: ir.Node) -> NodeBuilder:
    return NodeBuilder(str(node.outputs[0].name), role_of(node), node.outputs[0].dtype)


def _replace(node: ir.Node, graph: ir.Graph, build: NodeBuilder) -> None:
    """Replace a node by the built ones, of which the last has its output."""
    graph.insert_before(node, build.nodes)
    output = build.nodes[-1].outputs[0]
    output.shape = node.outputs[0].shape
    node.outputs[0].replace_all_uses_with(output)
    graph.remove(node, safe=True)
