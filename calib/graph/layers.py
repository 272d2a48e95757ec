"""The weighted layers of an exported graph, by role and structure; names are not used.

A node's role is the part of the network that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.roles import role_of
from model.arrays import Float32

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
# Roles with weights.
_ROLES = ("body", "fpn", "rpn", "roi_stage", "box_head", "mask_head", "keypoint_head")
# Their last weighted layers are predictors: logits, deltas, heat maps. The mask head's is not: its
# predictor is a product with the weights of the predicted class.
_PREDICTING_ROLES = ("rpn", "box_head", "keypoint_head")
# Operators without weights between two layers of a head.
_BETWEEN = frozenset(
    {
        "Add", "AveragePool", "Cast", "Clip", "Flatten", "GlobalAveragePool", "HardSigmoid",
        "HardSwish", "InstanceNormalization", "MaxPool", "Mul", "Relu", "Reshape",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A convolution, deconvolution or linear layer with constant weights.

    `is_predictor` layers return logits, deltas or heat maps and stay in floating point.
    """

    node: ir.Node
    role: str
    is_predictor: bool

    @property
    def name(self) -> str:
        """The node's name, which is the same in every copy of the graph."""
        return str(self.node.name)

    @property
    def data(self) -> ir.Value:
        """Its input, [N, C, …]."""
        return _required(self.node.inputs[0])

    @property
    def weight(self) -> ir.Value:
        """An initializer."""
        return _required(self.node.inputs[1])

    @property
    def bias(self) -> ir.Value | None:
        """An initializer [channels]; None without a bias."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def output(self) -> ir.Value:
        """Its output, before any ReLU."""
        return self.node.outputs[0]

    @property
    def weights(self) -> Float32:
        """The weights in the graph's layout."""
        return constant(self.weight)

    @property
    def channel_axis(self) -> int:
        """The axis of the output channels in the weights (of a group, in a deconvolution)."""
        if self.node.op_type == "Gemm":
            return 0 if self.node.attributes.get_int("transB", 0) else 1
        return 1 if self.node.op_type == "ConvTranspose" else 0

    @property
    def groups(self) -> int:
        """Of a convolution; 1 for a linear layer."""
        return int(self.node.attributes.get_int("group", 1))

    @property
    def channels_in_group(self) -> int:
        """Input channels that one output reads."""
        if self.node.op_type == "ConvTranspose":
            return int(self.weights.shape[0]) // self.groups
        return int(self.weights.shape[1 if self.node.op_type == "Conv" else 1 - self.channel_axis])

    def rows(self, weights: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The weights, or others of their shape, as [groups, outputs of a group, columns].

        Columns are the inputs of one output: channels first, then the kernel.
        """
        array = self.weights if weights is None else weights
        if self.node.op_type == "Gemm":
            return (array if self.channel_axis == 0 else array.T)[None]
        if self.node.op_type == "ConvTranspose":
            raise AssertionError("a deconvolution's outputs are sums over overlapping kernels")
        return array.reshape(self.groups, len(array) // self.groups, -1)

    def from_rows(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The inverse of `rows`."""
        if self.node.op_type == "Gemm":
            return np.ascontiguousarray(rows[0] if self.channel_axis == 0 else rows[0].T)
        return np.ascontiguousarray(rows).reshape(self.weights.shape)

    @property
    def scale_axis(self) -> int | None:
        """The axis with one scale per entry; None for one scale per tensor.

        TensorRT does not build INT8 deconvolutions with weights quantized per channel.
        """
        return None if self.node.op_type == "ConvTranspose" else self.channel_axis


def constant(value: ir.Value) -> Float32:
    """The values of an initializer."""
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float32)


def weighted_layers(graph: ir.Graph) -> list[Layer]:
    """All of them in the order of the graph, predictors included."""
    nodes = [node for node in graph if _is_weighted(node)]
    return [Layer(node, role_of(node), _is_predictor(node)) for node in nodes]


def hidden_layers(graph: ir.Graph) -> list[Layer]:
    """The weighted layers that may be quantized: all but the predictors."""
    return [layer for layer in weighted_layers(graph) if not layer.is_predictor]


def names_of(layers: Iterable[Layer]) -> set[str]:
    """The names of the layers' nodes."""
    return {layer.name for layer in layers}


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
    """Whether no weighted layer of the same head reads its output."""
    role = role_of(node)
    if role not in _PREDICTING_ROLES:
        return False
    return not any(_is_weighted(reader) for reader in _readers(node, role))


def _readers(node: ir.Node, role: str) -> Iterator[ir.Node]:
    """Nodes of the role that read the output directly or through operators without weights."""
    pending, visited = [node], {node}
    while pending:
        for value in pending.pop().outputs:
            for reader, _ in value.uses():
                if reader in visited or role_of(reader) != role:
                    continue
                visited.add(reader)
                yield reader
                if reader.op_type in _BETWEEN:
                    pending.append(reader)


def _required(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
