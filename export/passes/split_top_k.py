"""Write a top-k that is larger than TensorRT's as several, one after the other, exactly.

C4 and DC5 take 6,000 anchors before NMS, TensorRT's TopK 3,840 at most.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.roles import ROLE_KEY, role_of
from export.targets import MAX_TOP_K


def split_top_k(model: ir.Model) -> bool:
    """Rewrite every TopK beyond the limit; answers whether there was one.

    The first answers the largest values; they are then set to -inf, and the next one answers
    the largest of the rest, so that the parts together are the whole, in its order. A place that
    was taken already may come again where only -inf is left; it comes with -inf.
    """
    large = [(node, k) for node in model.graph if (k := _constant_k(node)) > MAX_TOP_K]
    for node, count in large:
        _split(model.graph, node, count)
    return bool(large)


def _constant_k(node: ir.Node) -> int:
    if node.op_type != "TopK" or node.inputs[1] is None:
        return 0
    constant = ir.convenience.get_const_tensor(node.inputs[1])
    return 0 if constant is None else int(constant.numpy().item())


def _split(graph: ir.Graph, node: ir.Node, count: int) -> None:
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    build = _Builder(node)
    rest, parts = node.inputs[0], []
    assert rest is not None
    while count:
        size = min(count, MAX_TOP_K)
        values, places = build.add("TopK", [rest, build.constant([size])], {"axis": axis}, 2)
        parts.append((values, places))
        count -= size
        if count:
            shape = build.add("Shape", [places], {})[0]
            lowest = build.add("Expand", [build.constant(-np.inf), shape], {})[0]
            rest = build.add("ScatterElements", [rest, places, lowest], {"axis": axis})[0]
    joined = [
        build.add("Concat", list(part), {"axis": axis})[0] for part in zip(*parts, strict=True)
    ]
    graph.insert_before(node, build.nodes)
    for old, new in zip(node.outputs, joined, strict=True):
        new.shape, new.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, new)
    graph.remove(node, safe=True)


class _Builder:
    """Makes nodes with the role of the one that they replace."""

    def __init__(self, replaced: ir.Node) -> None:
        self._prefix = f"{replaced.outputs[0].name}_split"
        self._role = role_of(replaced)
        self.nodes: list[ir.Node] = []

    def add(
        self, op: str, inputs: list[ir.Value], attributes: dict[str, int], outputs: int = 1
    ) -> list[ir.Value]:
        node = ir.node(op, inputs, attributes, num_outputs=outputs)
        return self._keep(node)

    def constant(self, value: list[int] | float) -> ir.Value:
        dtype = np.float32 if isinstance(value, float) else np.int64
        tensor = ir.tensor(np.array(value, dtype))
        return self._keep(ir.node("Constant", [], {"value": tensor}))[0]

    def _keep(self, node: ir.Node) -> list[ir.Value]:
        node.metadata_props[ROLE_KEY] = self._role
        node.name = f"{self._prefix}_{len(self.nodes)}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}_{index}"
        self.nodes.append(node)
        return list(node.outputs)
