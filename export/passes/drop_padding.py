"""Drop padding rows of -inf in front of a TopK that has enough real rows.

The network pads every level's logits with K rows of -inf, so that it works for all canvas sizes.
On a fixed canvas most levels have more than K anchors.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.passes.nodes import constant_value


def drop_padding(model: ir.Model) -> bool:
    """Rewrite every TopK over Concat(x, -inf …) whose x is long enough; returns whether any is.

    1. The concatenation is along TopK's axis, x first, and everything after x is constant -inf.
    2. x has at least K entries there. Among equal entries the first wins, so even an x full of -inf
       gives the same rows.
    3. All indices are then below x's length: a Clip to that length after them has no effect.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type != "TopK":
            continue
        padded, count = node.inputs[0], constant_value(node.inputs[1])
        source = _unpadded(padded, node.attributes.get_int("axis", -1))
        if source is None or source.shape is None or count is None:
            continue
        length = source.shape[node.attributes.get_int("axis", -1)]
        if not isinstance(length, int) or length < int(count.reshape(-1)[0]):
            continue
        node.replace_input_with(0, source)
        _drop_clip(node.outputs[1], length)
        changed = True
    return changed


def _unpadded(value: ir.Value | None, axis: int) -> ir.Value | None:
    """The x of Concat(x, -inf …), or None for another pattern."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Concat" or value is None or value.shape is None:
        return None
    rank = len(value.shape)
    if node.attributes.get_int("axis", 0) % rank != axis % rank or len(node.inputs) != 2:
        return None
    return node.inputs[0] if _fill_value(node.inputs[1]) == -np.inf else None


def _fill_value(value: ir.Value | None) -> float | None:
    """The single value of a constant tensor, or of one that a node fills."""
    if value is None:
        return None
    node = value.producer()
    if node is not None and node.op_type in ("Expand", "Reshape"):
        return _fill_value(node.inputs[0])
    if node is not None and node.op_type == "ConstantOfShape":
        filler = node.attributes.get("value")
        return 0.0 if filler is None else float(filler.as_tensor().numpy().reshape(-1)[0])
    constant = constant_value(value)
    if constant is None or constant.size == 0 or (constant != constant.flat[0]).any():
        return None
    return float(constant.flat[0])


def _drop_clip(indices: ir.Value, length: int) -> None:
    for node, _ in list(indices.uses()):
        if node.op_type not in ("Clip", "Min"):
            continue
        highest = constant_value(node.inputs[-1])
        lowest = constant_value(node.inputs[1]) if node.op_type == "Clip" else None
        if highest is None or int(highest) < length - 1 or (lowest is not None and int(lowest) > 0):
            continue
        node.outputs[0].replace_all_uses_with(indices)
