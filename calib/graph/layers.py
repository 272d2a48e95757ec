"""The weighted layers of an exported graph: which of them INT8 may touch, by role and structure.

Names decide nothing. A node's role says which part of the network made it; the rest is read off
the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.roles import role_of
from model.arrays import Float32

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
# What the network's parts compute features in; the roles of the others hold no weights.
_ROLES = ("body", "fpn", "rpn", "roi_stage", "box_head", "mask_head", "keypoint_head")
# The last weighted layers of these answer logits, deltas or heat maps. The mask head's last one
# does not: its predictor is a product with the row of the predicted class.
_PREDICTING_ROLES = ("rpn", "box_head", "keypoint_head")
# Ops that hand features on within a head.
_BETWEEN = frozenset(
    {
        "Add", "AveragePool", "Cast", "Clip", "Flatten", "GlobalAveragePool", "HardSigmoid",
        "HardSwish", "InstanceNormalization", "MaxPool", "Mul", "Relu", "Reshape",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A convolution, deconvolution or linear layer with constant weights.

    `is_predictor` layers answer logits, deltas or heat maps and stay in floating point.
    """

    node: ir.Node
    role: str
    is_predictor: bool

    @property
    def data(self) -> ir.Value:
        """What it reads, [N, C, …]."""
        return _known(self.node.inputs[0])

    @property
    def weight(self) -> ir.Value:
        """An initialiser."""
        return _known(self.node.inputs[1])

    @property
    def bias(self) -> ir.Value | None:
        """An initialiser [channels]; None where it has none."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def output(self) -> ir.Value:
        """What it answers."""
        return self.node.outputs[0]

    @property
    def weights(self) -> Float32:
        """The weights as they stand in the graph."""
        return constant(self.weight)

    @property
    def channel_axis(self) -> int:
        """The axis of the output channels in the weights (of a group, in a deconvolution)."""
        if self.node.op_type == "Gemm":
            return 0 if self.node.attributes.get_int("transB", 0) else 1
        return 1 if self.node.op_type == "ConvTranspose" else 0

    @property
    def groups(self) -> int:
        """Of a convolution; 1 of a linear layer."""
        return int(self.node.attributes.get_int("group", 1))

    @property
    def channels_in_group(self) -> int:
        """Input channels that one output sees."""
        if self.node.op_type == "ConvTranspose":
            return int(self.weights.shape[0]) // self.groups
        return int(self.weights.shape[1 if self.node.op_type == "Conv" else 1 - self.channel_axis])

    def rows(self, weights: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The weights, or others of their shape, as [groups, outputs of a group, columns].

        The columns of an output are what it is multiplied with: channels first, then the kernel.
        """
        array = self.weights if weights is None else weights
        if self.node.op_type == "Gemm":
            return (array if self.channel_axis == 0 else array.T)[None]
        if self.node.op_type == "ConvTranspose":
            raise AssertionError("a deconvolution's outputs are sums over overlapping kernels")
        return array.reshape(self.groups, len(array) // self.groups, -1)

    def from_rows(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What `rows` was made of."""
        if self.node.op_type == "Gemm":
            return np.ascontiguousarray(rows[0] if self.channel_axis == 0 else rows[0].T)
        return np.ascontiguousarray(rows).reshape(self.weights.shape)

    @property
    def scale_axis(self) -> int | None:
        """The axis that gets a scale per entry; None where one scale must do for all.

        Per-channel weights of an INT8 deconvolution do not build in TensorRT.
        """
        return None if self.node.op_type == "ConvTranspose" else self.channel_axis


def constant(value: ir.Value) -> Float32:
    """The numbers of an initialiser."""
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float32)


def weighted_layers(graph: ir.Graph) -> list[Layer]:
    """All of them in the order of the graph, predictors included."""
    nodes = [node for node in graph if _is_weighted(node)]
    return [Layer(node, role_of(node), _is_predictor(node)) for node in nodes]


def _is_weighted(node: ir.Node) -> bool:
    if node.op_type not in _WEIGHTED or role_of(node) not in _ROLES:
        return False
    weight = node.inputs[1]
    return (
        weight is not None
        and weight.const_value is not None
        and weight.const_value.dtype in _FLOATS
    )


def _is_predictor(node: ir.Node) -> bool:
    """Whether no weighted layer of the same head reads what it answers."""
    role = role_of(node)
    if role not in _PREDICTING_ROLES:
        return False
    return not any(_is_weighted(reader) for reader in _readers(node, role))


def _readers(node: ir.Node, role: str) -> Iterator[ir.Node]:
    """Nodes of the role that read the answer directly or through ops that hand features on."""
    waiting, seen = [node], {node}
    while waiting:
        for value in waiting.pop().outputs:
            for reader, _ in value.uses():
                if reader in seen or role_of(reader) != role:
                    continue
                seen.add(reader)
                yield reader
                if reader.op_type in _BETWEEN:
                    waiting.append(reader)


def _known(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
