"""Drop rows of minus infinity that a TopK with enough real rows can never take.

The network pads every level's logits with K rows of -inf, so that one text serves all canvas
sizes. On a fixed canvas most levels have more than K anchors of their own.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def drop_padding(model: ir.Model) -> bool:
    """Rewrite every TopK over Concat(x, -inf …) whose x is long enough; answers whether any was.

    1. The concatenation is along TopK's axis, x first, and all the rest is constant -inf.
    2. x has at least K entries there. Equal entries go to the first, so that even an x full of
       -inf gives the same rows; a NaN is neither more nor less welcome than before.
    3. Indices are below x's length then: a Clip to that length after them does nothing.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type != "TopK":
            continue
        padded, count = node.inputs[0], _constant(node.inputs[1])
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
    """What stands before the constant -inf, or None where that is not the pattern."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Concat" or value is None or value.shape is None:
        return None
    rank = len(value.shape)
    if node.attributes.get_int("axis", 0) % rank != axis % rank or len(node.inputs) != 2:
        return None
    padding = _filling(node.inputs[1])
    return node.inputs[0] if padding == -np.inf else None


def _filling(value: ir.Value | None) -> float | None:
    """The one number that a constant tensor is filled with, also where a node fills it."""
    if value is None:
        return None
    node = value.producer()
    if node is not None and node.op_type in ("Expand", "Reshape"):
        return _filling(node.inputs[0])
    if node is not None and node.op_type == "ConstantOfShape":
        filler = node.attributes.get("value")
        return 0.0 if filler is None else float(filler.as_tensor().numpy().reshape(-1)[0])
    constant = _constant(value)
    if constant is None or constant.size == 0 or (constant != constant.flat[0]).any():
        return None
    return float(constant.flat[0])


def _constant(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _drop_clip(indices: ir.Value, length: int) -> None:
    for node, _ in list(indices.uses()):
        if node.op_type not in ("Clip", "Min"):
            continue
        highest = _constant(node.inputs[-1])
        lowest = _constant(node.inputs[1]) if node.op_type == "Clip" else None
        if highest is None or int(highest) < length - 1 or (lowest is not None and lowest > 0):
            continue
        node.outputs[0].replace_all_uses_with(indices)
