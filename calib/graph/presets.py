"""Which weighted layers are quantised by default, and why the others are not: three presets.

Predictors stay in floating point in all of them: their answers are logits and coordinates. For the
rest it was measured on R50-FPN what 8 bits cost (docs/precision.md): in the heads next to nothing,
before them a lot, because what is rounded away there decides which proposals live.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import onnx_ir as ir

from calib.graph.layers import Layer
from model.errors import UsageError

Preset = Literal["accurate", "balanced", "fast"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

# `accurate` quantises only what works on single RoIs.
WHOLE_IMAGE_ROLES = ("body", "fpn", "rpn")
# Agreement AP is of boxes and masks: what nothing judges is not risked for a budget.
UNJUDGED_ROLE = "keypoint_head"
# `balanced` keeps the body's layers up to this stride: they are nearly half of the body's
# multiply-adds, and their noise passes through all that follows.
_BALANCED_STRIDE_PX = 8


def checked_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PRESETS:
        raise UsageError(f"--preset: expected one of {', '.join(PRESETS)}, got '{name}'")
    return name


def chosen_layers(layers: Sequence[Layer], preset: Preset) -> list[Layer]:
    """The layers to quantise.

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
    """Canvas pixels between two cells of a feature map of the body."""
    known = {} if known is None else known
    way: list[ir.Node] = []
    current: ir.Value | None = value
    # Along the first inputs: those of an Add have one stride. A loop, because bodies are deep.
    while current is not None and current not in known:
        node = current.producer()
        if node is None:
            break
        way.append(node)
        current = node.inputs[0] if node.inputs else None
    stride = 1 if current is None else known.get(current, 1)
    for node in reversed(way):
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            stride *= max(node.attributes.get_ints("strides", [1]))
        known[node.outputs[0]] = stride
    return stride
