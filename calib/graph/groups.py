"""Layers that are kept or quantised together, by the structure of the graph.

A layer that runs on every level of a pyramid, as the RPN's does, is a group per level: most of its
work, and little of its harm, is on the finest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from calib.graph.layers import Layer
from calib.graph.placement import is_add
from calib.graph.presets import stride_px

# A residual block is one group: between its layers nothing else reads.
_IN_BLOCKS = ("body", "roi_stage")


@dataclass(frozen=True, slots=True)
class Group:
    """`title` is for people; `nodes` are the names of its layers' nodes."""

    title: str
    nodes: frozenset[str]


def groups_of(graph: ir.Graph, layers: Sequence[Layer]) -> list[Group]:
    """Every layer in one group, in the order of the graph.

    A body's layers are grouped by residual block; any other layer stands alone.

    Args:
        graph: in topological order.
        layers: those that may be quantised.
    """
    keys = _block_of(graph)
    found: dict[object, list[Layer]] = {}
    for layer in layers:
        in_block = layer.role in _IN_BLOCKS
        key = (layer.role, keys[layer.node]) if in_block else layer.node
        found.setdefault(key, []).append(layer)
    titles = _titles(list(found.values()))
    return [
        Group(title, frozenset(str(layer.node.name) for layer in members))
        for title, members in zip(titles, found.values(), strict=True)
    ]


def _block_of(graph: ir.Graph) -> dict[ir.Node, tuple[int, int]]:
    """A number that grows behind every residual Add, and the stride, by node.

    It grows behind the MaxPool too: the stem, which reads the image, is noisier than any block.
    """
    block = 0
    known: dict[ir.Value, int] = {}
    found: dict[ir.Node, tuple[int, int]] = {}
    for node in graph:
        if node.op_type in ("Conv", "Gemm", "ConvTranspose"):
            found[node] = block, stride_px(node.outputs[0], known)
        block += is_add(node) or node.op_type == "MaxPool"
    # A block's first layer may have another stride than its last, and belongs to it all the same.
    last = {number: stride for number, stride in found.values()}
    has_add = {number for number in last if number < block}
    return {
        node: (number, last[number] if number in has_add else stride)
        for node, (number, stride) in found.items()
    }


def _titles(groups: Sequence[Sequence[Layer]]) -> list[str]:
    """A role, in the body a stride, and a number where there are several."""
    stems = [_stem(members) for members in groups]
    total, seen = Counter(stems), Counter[str]()
    titles = []
    for stem in stems:
        seen[stem] += 1
        titles.append(stem if total[stem] == 1 else f"{stem} {seen[stem]}")
    return titles


def _stem(members: Sequence[Layer]) -> str:
    role = members[0].role.replace("_", " ")
    if members[0].role == "body":
        return f"body /{stride_px(members[-1].output)}"
    weights = members[0].weights
    kernel = "×".join(str(side) for side in weights.shape[2:])
    return f"{role} {kernel}" if kernel else f"{role} linear"
