"""Which layers each preset quantizes, and why the others stay in floating point.

Predictors are never quantized: their outputs are logits and coordinates. Measured on R50-FPN
(docs/precision.md), 8 bits cost almost nothing in the heads and a lot before them, where rounding
changes which proposals survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import onnx_ir as ir

from calib.graph.layers import Layer

Preset = Literal["accurate", "balanced", "fast"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

# Layers that run on the whole image; `accurate` quantizes only those that run on RoIs.
WHOLE_IMAGE_ROLES = ("body", "fpn", "rpn")
# Agreement AP covers boxes and masks only, so the budget search leaves this head unquantized.
UNSCORED_ROLE = "keypoint_head"
# `balanced` keeps the body's layers up to this stride: nearly half of the body's multiply-adds,
# whose noise passes through all later layers.
_BALANCED_STRIDE_PX = 8


def chosen_layers(layers: Sequence[Layer], preset: Preset) -> list[Layer]:
    """The layers to quantize.

    Args:
        layers: all weighted ones.
        preset: "fast" takes all hidden layers; "balanced" all but the body's first; "accurate"
            those of the heads, or as "balanced" where the model has no hidden layer in a head.
    """
    hidden = [layer for layer in layers if not layer.is_predictor]
    if preset == "fast":
        return hidden
    if preset == "accurate":
        heads = [layer for layer in hidden if layer.role not in WHOLE_IMAGE_ROLES]
        return heads or chosen_layers(layers, "balanced")
    known: dict[ir.Value, int] = {}
    return [
        layer
        for layer in hidden
        if layer.role != "body" or stride_px(layer.output, known) > _BALANCED_STRIDE_PX
    ]


def stride_px(value: ir.Value, known: dict[ir.Value, int] | None = None) -> int:
    """Canvas pixels between two cells of a feature map of the body; `known` is a cache."""
    known = {} if known is None else known
    path: list[ir.Node] = []
    current: ir.Value | None = value
    # Along the first inputs: those of an Add have one stride. A loop, because bodies are deep.
    while current is not None and current not in known:
        node = current.producer()
        if node is None:
            break
        path.append(node)
        current = node.inputs[0] if node.inputs else None
    stride = 1 if current is None else known.get(current, 1)
    for node in reversed(path):
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            stride *= max(node.attributes.get_ints("strides", [1]))
        known[node.outputs[0]] = stride
    return stride
