"""Which weighted layers become integers by default, and why the others do not.

Predictors stay in floating point: their answers are logits and coordinates. So do the body's first
layers, up to a stride of four pixels: what they round away passes through the whole network. On
R50-FPN they are 7 % of the multiply-adds and three fifths of the noise that INT8 puts into the
pyramid's finest levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from calib.layers import Layer

FLOAT_STRIDE = 4


def chosen_layers(layers: Sequence[Layer], float_stride: int = FLOAT_STRIDE) -> list[Layer]:
    """The layers to quantise.

    Args:
        layers: all weighted ones.
        float_stride: layers of the body that answer at this stride, in pixels of the canvas, or
            a finer one, stay in floating point; 0 keeps none.
    """
    known: dict[ir.Value, int] = {}
    return [
        layer
        for layer in layers
        if not layer.is_predictor
        and not (layer.role == "body" and stride_px(layer.output, known) <= float_stride)
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
