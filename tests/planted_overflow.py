"""A planted overflow that only half precision has, for tests of the checks that find one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir


def scaled(by: float, names: list[str]) -> Callable[[ir.Model], None]:
    """Scale the output of one convolution of the body, undo it in the next, and append its name."""

    def change(model: ir.Model) -> None:
        first = next(n for n in model.graph if n.op_type == "Conv" and _only_reader(n))
        names.append(str(first.outputs[0].name))
        second = _only_reader(first)
        for node, factor, indices in ((first, by, (1, 2)), (second, 1 / by, (1,))):
            for index in indices:
                value = node.inputs[index]
                numbers = value.const_value.numpy() * np.float32(factor)
                value.const_value = ir.tensor(numbers, name=value.name)

    return change


def _only_reader(node: ir.Node) -> ir.Node | None:
    """The convolution that alone reads a convolution's Relu."""
    for expected in ("Relu", "Conv"):
        users = [user for user, _ in node.outputs[0].uses()]
        if len(users) != 1 or users[0].op_type != expected:
            return None
        node = users[0]
    return node
