"""Layers that are quantized together by the budget search, from the structure of the graph.

A layer that runs on every pyramid level, such as the RPN's, forms one group per level: most of its
work, and little of its damage, is on the finest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from calib.graph.layers import Layer
from calib.graph.placement import is_add
from calib.graph.presets import stride_px

# A residual block is one group: nothing outside reads the tensors between its layers.
_BLOCK_ROLES = ("body", "roi_stage")


@dataclass(frozen=True, slots=True)
class Group:
    """`title` is for display; `nodes` are the names of the layers."""

    title: str
    nodes: frozenset[str]


def groups_of(graph: ir.Graph, layers: Sequence[Layer]) -> list[Group]:
    """Every layer in one group, in the order of the graph.

    The body's layers are grouped by residual block; any other layer is a group of its own.

    Args:
        graph: in topological order.
        layers: those that may be quantized.
    """
    keys = _block_of(graph)
    groups: dict[object, list[Layer]] = {}
    for layer in layers:
        in_block = layer.role in _BLOCK_ROLES
        key = (layer.role, keys[layer.node]) if in_block else layer.node
        groups.setdefault(key, []).append(layer)
    titles = _titles(list(groups.values()))
    return [
        Group(title, frozenset(layer.name for layer in members))
        for title, members in zip(titles, groups.values(), strict=True)
    ]


def _block_of(graph: ir.Graph) -> dict[ir.Node, tuple[int, int]]:
    """Block number and stride of every weighted node.

    The number grows after every residual Add, and after the MaxPool: the stem, which reads the
    image, is noisier than any block.
    """
    block = 0
    known: dict[ir.Value, int] = {}
    blocks: dict[ir.Node, tuple[int, int]] = {}
    for node in graph:
        if node.op_type in ("Conv", "Gemm", "ConvTranspose"):
            blocks[node] = block, stride_px(node.outputs[0], known)
        block += is_add(node) or node.op_type == "MaxPool"
    # The first layer of a block may have another stride than the last, yet belongs to it.
    last = {number: stride for number, stride in blocks.values()}
    has_add = {number for number in last if number < block}
    return {
        node: (number, last[number] if number in has_add else stride)
        for node, (number, stride) in blocks.items()
    }


def _titles(groups: Sequence[Sequence[Layer]]) -> list[str]:
    """The role, in the body the stride, and a number where several groups share both."""
    stems = [_stem(members) for members in groups]
    total, numbers = Counter(stems), Counter[str]()
    titles = []
    for stem in stems:
        numbers[stem] += 1
        titles.append(stem if total[stem] == 1 else f"{stem} {numbers[stem]}")
    return titles


def _stem(members: Sequence[Layer]) -> str:
    role = members[0].role.replace("_", " ")
    if members[0].role == "body":
        return f"body /{stride_px(members[-1].output)}"
    weights = members[0].weights
    kernel = "×".join(str(side) for side in weights.shape[2:])
    return f"{role} {kernel}" if kernel else f"{role} linear"
