"""Split a TopK that is larger than TensorRT's limit into several, exactly.

C4 and DC5 select 6,000 anchors before NMS; the limit is 3,840.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.passes.nodes import NodeBuilder, constant_value
from export.roles import role_of
from export.targets import MAX_TOP_K


def split_top_k(model: ir.Model) -> bool:
    """Rewrite every TopK beyond the limit; returns whether there is one.

    The first TopK selects the largest values, which are then set to -inf; the next one selects
    from the others. The concatenated parts equal the whole, in order. Where only -inf is left, an
    index may repeat, with the value -inf.
    """
    large = [(node, k) for node in model.graph if (k := _constant_k(node)) > MAX_TOP_K]
    for node, count in large:
        _split(model.graph, node, count)
    return bool(large)


def _constant_k(node: ir.Node) -> int:
    k = constant_value(node.inputs[1]) if node.op_type == "TopK" else None
    return 0 if k is None else int(k.item())


def _split(graph: ir.Graph, node: ir.Node, count: int) -> None:
    axis = node.attributes.get_int("axis", -1)
    build = NodeBuilder(f"{node.outputs[0].name}_split", role_of(node))
    remaining, parts = node.inputs[0], []
    while count:
        size = min(count, MAX_TOP_K)
        build.add("TopK", remaining, build.constant([size]), num_outputs=2, axis=axis)
        values, indices = build.nodes[-1].outputs
        parts.append((values, indices))
        count -= size
        if count:
            lowest = build.add("Expand", build.constant(-np.inf), build.add("Shape", indices))
            remaining = build.add("ScatterElements", remaining, indices, lowest, axis=axis)
    joined = [build.add("Concat", *part, axis=axis) for part in zip(*parts, strict=True)]
    graph.insert_before(node, build.nodes)
    for old, new in zip(node.outputs, joined, strict=True):
        new.shape, new.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, new)
    graph.remove(node, safe=True)
