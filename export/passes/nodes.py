"""New nodes and constant values, shared by the passes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.roles import ROLE_KEY


class NodeBuilder:
    """Builds nodes of one role, with unique names; the caller inserts `nodes` into its graph.

    Args:
        prefix: of the names.
        role: of the nodes.
        dtype: of all results of `add`; None: unknown.
    """

    def __init__(self, prefix: str, role: str, dtype: ir.DataType | None = None) -> None:
        self._prefix, self._role, self._dtype = prefix, role, dtype
        self.nodes: list[ir.Node] = []

    def add(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        num_outputs: int = 1,
        **attributes: int | list[int],
    ) -> ir.Value:
        """Build a node; returns its first output."""
        node = ir.node(op_type, list(inputs), attributes, num_outputs=num_outputs)
        return self._name(node, self._dtype)

    def constant(self, value: float | list[int]) -> ir.Value:
        """A Constant: float32 for a float, int64 for integers."""
        array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        output = self._name(ir.node("Constant", [], {"value": ir.tensor(array)}), None)
        output.dtype, output.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        return output

    def _name(self, node: ir.Node, dtype: ir.DataType | None) -> ir.Value:
        node.metadata_props[ROLE_KEY] = self._role
        node.name = f"{self._prefix}_{len(self.nodes)}_{node.op_type}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}_{index}" if index else node.name
            if dtype is not None:
                value.dtype = dtype
        self.nodes.append(node)
        return node.outputs[0]


def constant_value(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array of an initializer or a Constant, or None."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()
