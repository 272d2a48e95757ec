"""Run the mask and keypoint heads on the valid detections only.

The network always has D rows per image, filled or not. ONNX Runtime can run fewer: the filled rows
are extracted before the head and scattered back after it.
"""

from __future__ import annotations

import onnx_ir as ir

from export.passes.nodes import NodeBuilder
from export.roles import role_of
from model.errors import ExportError

_ROLES = ("mask_head", "keypoint_head")
# C4's stage runs twice, once for the boxes and once for the masks.
_SHARED, _MASK_POOL = "roi_stage", "mask_pool"


def compact_heads(model: ir.Model) -> bool:
    """Rewrite the graph; returns whether it has such a head.

    1. A row is filled if its index is below its image's `counts`. The first row always counts as
       filled, because runtimes differ on convolutions without rows.
    2. Compress extracts the filled rows of every value that enters the head.
    3. The head's output is scattered into zeros at the filled rows.

    Args:
        model: tagged by `tag_roles`; changed in place.

    Raises:
        ExportError: a head has more than one output.
    """
    changed = False
    for role in _ROLES:
        head = [node for node in model.graph if role_of(node) == role]
        if head and _is_rowwise(model.graph, head):
            _compact(model.graph, _with_stage(model.graph, head), role)
            changed = True
    return changed


def _is_rowwise(graph: ir.Graph, head: list[ir.Node]) -> bool:
    """Whether all that the head reads has a row per detection.

    A module of the user may compute with the number of rows, which would be that of all rows.
    """
    rows = _with_stage(graph, head)
    reads_input = any(value in graph.inputs for node in rows for value in node.inputs)
    entering = _entering(rows, {value for node in rows for value in node.outputs})
    counts = {None if not value.shape else value.shape[0] for value in entering}
    return not reads_input and len(counts) == 1 and isinstance(counts.pop(), ir.SymbolicDim)


def _with_stage(graph: ir.Graph, head: list[ir.Node]) -> list[ir.Node]:
    """The head's nodes, and those of the shared stage that depend on the mask pool."""
    stage: list[ir.Node] = []
    if role_of(head[0]) != "mask_head":
        return head
    pooled = {v for node in graph if role_of(node) == _MASK_POOL for v in node.outputs}
    for node in graph:  # in topological order
        if role_of(node) == _SHARED and any(v in pooled for v in node.inputs):
            pooled.update(node.outputs)
            stage.append(node)
    return [*stage, *head]


def _compact(graph: ir.Graph, head: list[ir.Node], role: str) -> None:
    inside = {value for node in head for value in node.outputs}
    leaving = [v for v in inside if any(u not in head for u, _ in v.uses()) or v.is_graph_output()]
    if len(leaving) != 1:
        raise ExportError(f"{role}: expected one output, got {len(leaving)}")
    build = NodeBuilder(f"compact_{role}", role)
    filled = _filled_rows(graph, build)
    for value in _entering(head, inside):
        _compress(value, filled, head, build)
    graph.extend(build.nodes)
    _scatter_back(leaving[0], filled, graph, role)
    graph.sort()


def _filled_rows(graph: ir.Graph, build: NodeBuilder) -> ir.Value:
    """Bool [N * D]."""
    outputs = {value.name: value for value in graph.outputs}
    zero, one = build.constant(0), build.constant(1)
    per_image = build.add("Gather", build.add("Shape", outputs["boxes"]), one)
    # In the type of `counts`: OpenVINO's reader would give its name to a cast of it.
    position = build.add("Cast", build.add("Range", zero, per_image, one), to=ir.DataType.INT32)
    counts = build.add("Unsqueeze", outputs["counts"], build.constant([1]))
    below = build.add("Reshape", build.add("Less", position, counts), build.constant([-1]))
    rows = build.add("Range", zero, build.add("Size", below), one)
    return build.add("Or", below, build.add("Equal", rows, zero))


def _entering(head: list[ir.Node], inside: set[ir.Value]) -> list[ir.Value]:
    """Values that the head reads from other parts of the network."""
    values: list[ir.Value] = []
    for node in head:
        for value in node.inputs:
            if value is None or value in inside or value in values:
                continue
            producer = value.producer()
            if producer is not None and producer.op_type != "Constant":
                values.append(value)
    return values


def _compress(value: ir.Value, filled: ir.Value, head: list[ir.Node], build: NodeBuilder) -> None:
    users = [(node, index) for node, index in value.uses() if node in head]
    rows = value
    # Labels are [N, D]; pooled features are already [N * D, C, P, P].
    if value.shape is not None and len(value.shape) == 2:
        rows = build.add("Reshape", value, build.constant([-1]))
    compact = build.add("Compress", rows, filled, axis=0)
    for node, index in users:
        node.replace_input_with(index, compact)


def _scatter_back(compact: ir.Value, filled: ir.Value, graph: ir.Graph, role: str) -> None:
    build = NodeBuilder(f"restore_{role}", role)
    users = list(compact.uses())
    total = build.add("Reshape", build.add("Size", filled), build.constant([1]))
    shape = build.add("Concat", total, build.add("Shape", compact, start=1), axis=0)
    zeros = build.add("Expand", build.constant(0.0), shape)
    index = build.add("Transpose", build.add("NonZero", filled))
    restored = build.add("ScatterND", zeros, index, compact)
    for node, position in users:
        node.replace_input_with(position, restored)
    graph.extend(build.nodes)
