"""Let the mask and keypoint heads run on the valid detections only.

The network has static counts: D rows per image whether or not they are filled. ONNX Runtime can
run fewer: the rows that are filled are taken out before the head and put back after it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.roles import ROLE_KEY, role_of
from model.errors import ExportError

_ROLES = ("mask_head", "keypoint_head")
# C4's stage runs twice, once for the boxes and once for the masks.
_SHARED, _MASK_POOL = "roi_stage", "mask_pool"


def compact_heads(model: ir.Model) -> bool:
    """Rewrite the graph; answers whether there was such a head.

    1. A row is wanted when it is below its image's `counts`; the first row always is, because
       a convolution over no row at all is not run alike everywhere.
    2. Every value that enters the head row by row goes through Compress.
    3. The head's output is scattered into zeros at the wanted rows.

    Args:
        model: tagged by `tag_roles`; changed in place.

    Raises:
        ExportError: a head has more than one output, so rows could not be put back.
    """
    changed = False
    for role in _ROLES:
        head = [node for node in model.graph if role_of(node) == role]
        if head:
            _compact(model.graph, _with_stage(model.graph, head), role)
            changed = True
    return changed


def _with_stage(graph: ir.Graph, head: list[ir.Node]) -> list[ir.Node]:
    """The head's nodes and those of the stage before it that read what the mask pool answers."""
    found: list[ir.Node] = []
    if role_of(head[0]) != "mask_head":
        return head
    pooled = {v for node in graph if role_of(node) == _MASK_POOL for v in node.outputs}
    for node in graph:  # in topological order
        if role_of(node) == _SHARED and any(v in pooled for v in node.inputs):
            pooled.update(node.outputs)
            found.append(node)
    return [*found, *head]


def _compact(graph: ir.Graph, head: list[ir.Node], role: str) -> None:
    inside = {value for node in head for value in node.outputs}
    leaving = [v for v in inside if any(u not in head for u, _ in v.uses()) or v.is_graph_output()]
    if len(leaving) != 1:
        raise ExportError(f"{role}: expected one output, got {len(leaving)}")
    build = _Builder(f"compact_{role}", role)
    wanted = _wanted_rows(graph, build)
    for value in _entering(head, inside):
        _compress(value, wanted, head, build)
    graph.extend(build.nodes)
    _scatter_back(leaving[0], wanted, graph, role)
    graph.sort()


class _Builder:
    """Makes nodes that carry the head's role and have names of their own."""

    def __init__(self, prefix: str, role: str) -> None:
        self._prefix = prefix
        self._role = role
        self.nodes: list[ir.Node] = []

    def add(self, op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return self._keep(ir.node(op, list(inputs), attributes))

    def constant(self, value: int | float | list[int]) -> ir.Value:
        dtype = np.float32 if isinstance(value, float) else np.int64
        return self._keep(ir.node("Constant", [], {"value": ir.tensor(np.array(value, dtype))}))

    def _keep(self, node: ir.Node) -> ir.Value:
        node.metadata_props[ROLE_KEY] = self._role
        node.name = f"{self._prefix}_{len(self.nodes)}_{node.op_type}"
        node.outputs[0].name = node.name
        self.nodes.append(node)
        return node.outputs[0]


def _wanted_rows(graph: ir.Graph, build: _Builder) -> ir.Value:
    """Bool [N * D]."""
    outputs = {value.name: value for value in graph.outputs}
    zero, one = build.constant(0), build.constant(1)
    per_image = build.add("Gather", build.add("Shape", outputs["boxes"]), one)
    # In the type of `counts`: a cast of it would take over its name in OpenVINO's reader.
    position = build.add("Cast", build.add("Range", zero, per_image, one), to=ir.DataType.INT32)
    counts = build.add("Unsqueeze", outputs["counts"], build.constant([1]))
    filled = build.add("Reshape", build.add("Less", position, counts), build.constant([-1]))
    rows = build.add("Range", zero, build.add("Size", filled), one)
    return build.add("Or", filled, build.add("Equal", rows, zero))


def _entering(head: list[ir.Node], inside: set[ir.Value]) -> list[ir.Value]:
    """Values that other parts of the network compute and the head reads."""
    found: list[ir.Value] = []
    for node in head:
        for value in node.inputs:
            if value is None or value in inside or value in found:
                continue
            producer = value.producer()
            if producer is not None and producer.op_type != "Constant":
                found.append(value)
    return found


def _compress(value: ir.Value, wanted: ir.Value, head: list[ir.Node], build: _Builder) -> None:
    users = [(node, index) for node, index in value.uses() if node in head]
    rows = value
    # Labels arrive as [N, D]; pooled features are [N * D, C, P, P] already.
    if value.shape is not None and len(value.shape) == 2:
        rows = build.add("Reshape", value, build.constant([-1]))
    compact = build.add("Compress", rows, wanted, axis=0)
    for node, index in users:
        node.replace_input_with(index, compact)


def _scatter_back(compact: ir.Value, wanted: ir.Value, graph: ir.Graph, role: str) -> None:
    build = _Builder(f"restore_{role}", role)
    users = list(compact.uses())
    total = build.add("Reshape", build.add("Size", wanted), build.constant([1]))
    shape = build.add("Concat", total, build.add("Shape", compact, start=1), axis=0)
    zeros = build.add("Expand", build.constant(0.0), shape)
    index = build.add("Transpose", build.add("NonZero", wanted))
    restored = build.add("ScatterND", zeros, index, compact)
    for node, position in users:
        node.replace_input_with(position, restored)
    graph.extend(build.nodes)
