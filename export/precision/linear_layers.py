"""Replace convolutions over 1 x 1 images by matrix products, for a CPU.

`passes/products_without_gemm.py` creates them from linear layers for TensorRT-RTX. ONNX Runtime
rereads all weights for every row of such a convolution, which is a hundred times slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_PIXEL = (1, 1)
_COPIES = ("Cast", "Identity")


def products(model: onnx.ModelProto) -> int:
    """Rewrite the graph in place; returns the number of replaced convolutions.

    Conv(x, W [N, K, 1, 1], b) becomes Gemm(Reshape(x, [-1, K]), W [N, K], b) if x comes from a
    Reshape to [-1, K, 1, 1] and only Reshapes read the output, which becomes [M, N] instead of
    [M, N, 1, 1]. Casts in between are allowed.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
        if (
            weight is not None
            and tuple(weight.dims[2:]) == _PIXEL
            and _is_pixel(node.input[0], producers, weights)
            and _only_reshaped(node.output[0], users)
        ):
            nodes += _as_product(node, weight, graph)
            count += 1
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    return count


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    read |= {value.name for value in graph.output}  # a diagnostic output may be a constant
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(used) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(used)


def _is_pixel(
    name: str, producers: Mapping[str, onnx.NodeProto], weights: Mapping[str, onnx.TensorProto]
) -> bool:
    node = producers.get(name)
    while node is not None and node.op_type in _COPIES:
        node = producers.get(node.input[0])
    if node is None or node.op_type != "Reshape":
        return False
    shape = _constant(node.input[1], producers, weights)
    return shape is not None and shape.size == 4 and tuple(shape[2:]) == _PIXEL


def _constant(
    name: str, producers: Mapping[str, onnx.NodeProto], weights: Mapping[str, onnx.TensorProto]
) -> npt.NDArray[Any] | None:
    if name in weights:
        return numpy_helper.to_array(weights[name])
    node = producers.get(name)
    if node is None or node.op_type != "Constant" or node.attribute[0].name != "value":
        return None
    return numpy_helper.to_array(node.attribute[0].t)


def _only_reshaped(name: str, users: Mapping[str, list[onnx.NodeProto]]) -> bool:
    readers = users.get(name, [])
    return bool(readers) and all(
        reader.op_type == "Reshape"
        or (reader.op_type in _COPIES and _only_reshaped(reader.output[0], users))
        for reader in readers
    )


def _as_product(
    node: onnx.NodeProto, weight: onnx.TensorProto, graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    shape, rows = f"{node.output[0]}.shape", f"{node.output[0]}.rows"
    matrix = f"{weight.name}.matrix"
    if matrix not in {tensor.name for tensor in graph.initializer}:
        copy = graph.initializer.add()
        copy.CopyFrom(weight)
        copy.name = matrix
        del copy.dims[2:]
    row_shape = np.array([-1, weight.dims[1]], np.int64)
    graph.initializer.append(numpy_helper.from_array(row_shape, shape))
    for info in graph.value_info:
        if info.name == node.output[0]:
            info.type.tensor_type.ClearField("shape")
    product = helper.make_node(
        "Gemm", [rows, matrix, *node.input[2:]], list(node.output), name=node.name, transB=1
    )
    product.metadata_props.extend(node.metadata_props)
    return [helper.make_node("Reshape", [node.input[0], shape], [rows]), product]
