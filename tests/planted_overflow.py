"""An overflow that only half precision has: planted, so that a check can be seen to find it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir


def scaled(by: float, names: list[str]) -> Callable[[ir.Model], None]:
    """Scale what one convolution of the body answers, and take it back in the next; name it."""

    def change(model: ir.Model) -> None:
        first = next(n for n in model.graph if n.op_type == "Conv" and _only_reader(n))
        names.append(str(first.outputs[0].name))
        second = _only_reader(first)
        for node, factor, places in ((first, by, (1, 2)), (second, 1 / by, (1,))):
            for place in places:
                value = node.inputs[place]
                numbers = value.const_value.numpy() * np.float32(factor)
                value.const_value = ir.tensor(numbers, name=value.name)

    return change


def _only_reader(node: ir.Node) -> ir.Node | None:
    """The convolution that alone reads a convolution's Relu."""
    for wanted in ("Relu", "Conv"):
        users = [user for user, _ in node.outputs[0].uses()]
        if len(users) != 1 or users[0].op_type != wanted:
            return None
        node = users[0]
    return node
