"""Move range from channels that have too much to those that have too little; exact in floats.

One scale serves a whole activation tensor, so a channel a tenth as large as the largest has a tenth
of the steps. Channels can be rescaled where every writer and every reader of them is a weighted
layer: what the writers' rows are divided by, the readers' columns are multiplied with. A residual
stream or a pyramid is one such group: all of its tensors share their channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.graph.layers import Layer, constant

Float32 = npt.NDArray[np.float32]

# Ops that answer s * f(x) for s * x with s > 0 per channel.
_COMMUTING = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "Add", "Resize", "Identity")
# Channels are moved by at most this factor either way: ranges are estimates.
_MOST = 16.0


@dataclass(slots=True, eq=False)
class ChannelGroup:
    """Tensors [N, C, …] that share their channels' scales, and the layers at their ends."""

    values: list[ir.Value] = field(default_factory=list)
    writers: list[Layer] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """C."""
        return int(self.writers[0].weights.shape[self.writers[0].channel_axis])


def channel_groups(graph: ir.Graph, layers: Iterable[Layer]) -> list[ChannelGroup]:
    """Every group whose ends are all weighted layers.

    Args:
        graph: in floating point.
        layers: all weighted ones, predictors included.
    """
    chosen = list(layers)
    links = _Links()
    for node in graph:
        if node.op_type in _COMMUTING:
            # A Resize reads a size as well.
            features = node.inputs if node.op_type == "Add" else node.inputs[:1]
            _link_all(links, [*features, node.outputs[0]])
        elif _keeps_channels(node):
            _link_all(links, [node.inputs[0], node.outputs[0]])
    # Layers that share their weights share the scales at both of their ends.
    for shared in _by_weight(chosen).values():
        _link_all(links, [layer.data for layer in shared])
        _link_all(links, [layer.output for layer in shared])
    return [g for g in _grouped(links, chosen) if _is_closed(g)]


def equalise(
    groups: Iterable[ChannelGroup], largest: Mapping[str, Float32], strength: float = 0.5
) -> int:
    """Rescale channels in the weights; answers how many groups were rescaled.

    Args:
        groups: of `channel_groups`; their layers' weights and biases are replaced.
        largest: float32 [C], each channel's largest magnitude on photos, by tensor.
        strength: 0 moves nothing, 1 makes all channels of the activations alike and leaves what
            they differed by to the readers' weights.

    Source: Nagel et al., Data-Free Quantization, sec. 4.1; Xiao et al., SmoothQuant, sec. 4.
    """
    done = 0
    for group in groups:
        seen = [largest[str(v.name)] for v in group.values if str(v.name) in largest]
        if not seen:
            continue
        scales = _scales(np.max(seen, axis=0), group, strength)
        _rescale(group, scales)
        done += 1
    return done


def _scales(activations: Float32, group: ChannelGroup, strength: float) -> Float32:
    """float32 [C]: what each channel is divided by; 1 for those that were never seen."""
    columns = np.max([_column_magnitudes(layer) for layer in group.readers], axis=0)
    used = (activations > 0) & (columns > 0)
    if not used.any():
        return np.ones_like(activations)
    wanted = np.ones_like(activations)
    wanted[used] = activations[used] ** strength / columns[used] ** (1.0 - strength)
    middle = np.exp(np.mean(np.log(wanted[used])))
    wanted = np.where(used, np.clip(wanted / middle, 1.0 / _MOST, _MOST), 1.0)
    return wanted.astype(np.float32)


def _column_magnitudes(layer: Layer) -> Float32:
    """float32 [C]: the largest magnitude of the weights that read each channel."""
    grouped = _by_input_channel(layer, layer.weights)
    magnitudes: Float32 = np.abs(grouped).max(axis=(1, 3)).reshape(-1)
    return magnitudes


def _by_input_channel(layer: Layer, weights: Float32) -> Float32:
    """A view [groups, outputs per group, inputs per group, the rest]."""
    groups = layer.node.attributes.get_int("group", 1)
    if layer.node.op_type == "Gemm":
        rows = weights if layer.channel_axis == 0 else weights.T
        return rows[None, :, :, None]
    if layer.node.op_type == "ConvTranspose":  # [C, outputs per group, …]
        wide = weights.reshape(groups, -1, weights.shape[1], int(np.prod(weights.shape[2:])))
        return wide.transpose(0, 2, 1, 3)
    return weights.reshape(groups, -1, weights.shape[1], int(np.prod(weights.shape[2:])))


def _rescale(group: ChannelGroup, scales: Float32) -> None:
    for shared in _by_weight(group.writers).values():
        layer = shared[0]
        shape = [1] * layer.weights.ndim
        shape[layer.channel_axis] = -1
        _replace(layer.weight, layer.weights / scales.reshape(shape))
        for bias in {one.bias for one in shared if one.bias is not None}:
            _replace(bias, constant(bias) / scales)
    for shared in _by_weight(group.readers).values():
        layer = shared[0]
        weights = layer.weights.copy()
        view = _by_input_channel(layer, weights)
        view *= scales.reshape(len(view), 1, -1, 1)
        _replace(layer.weight, weights)


def _replace(value: ir.Value, array: Float32) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array, np.float32), name=value.name)


def _by_weight(layers: Iterable[Layer]) -> dict[ir.Value, list[Layer]]:
    found: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.weight, []).append(layer)
    return found


def _grouped(links: _Links, layers: Iterable[Layer]) -> list[ChannelGroup]:
    groups: dict[ir.Value, ChannelGroup] = {}
    for layer in layers:
        groups.setdefault(links.root(layer.output), ChannelGroup()).writers.append(layer)
    for layer in layers:
        root = links.root(layer.data)
        if root in groups:
            groups[root].readers.append(layer)
    for value in links.values():
        root = links.root(value)
        if root in groups:
            groups[root].values.append(value)
    return list(groups.values())


def _is_closed(group: ChannelGroup) -> bool:
    """Whether nothing but weighted layers and ops that commute writes or reads the channels."""
    if not group.readers:
        return False
    members = set(group.values)
    writers = {layer.node for layer in group.writers}
    readers = {layer.node for layer in group.readers}
    for value in members:
        producer = value.producer()
        if producer is None or value.is_graph_output():
            return False
        if producer not in writers and not _commutes(producer, members):
            return False
        for reader, index in value.uses():
            is_shape = reader.op_type == "Shape"
            is_data = reader in readers and index == 0
            if not is_shape and not is_data and not _commutes(reader, members):
                return False
    return len({layer.weights.shape[layer.channel_axis] for layer in group.writers}) == 1


def _commutes(node: ir.Node, members: set[ir.Value]) -> bool:
    return (node.op_type in _COMMUTING or _keeps_channels(node)) and node.outputs[0] in members


def _keeps_channels(node: ir.Node) -> bool:
    """Reshape between [M, C] and [M, C, 1, 1], as linear layers written as convolutions have it."""
    if node.op_type != "Reshape":
        return False
    source, shape = node.inputs[0], node.inputs[1]
    if source is None or shape is None:
        return False
    target = _integers(shape)
    channels = _linear_channels(source)
    return (
        target is not None
        and channels is not None
        and target
        in (
            [-1, channels],
            [-1, channels, 1, 1],
        )
    )


def _integers(value: ir.Value) -> list[int] | None:
    """A constant's numbers, of an initialiser or of a Constant node."""
    tensor = value.const_value
    producer = value.producer()
    if tensor is None and producer is not None and producer.op_type == "Constant":
        tensor = producer.attributes["value"].as_tensor()
    return None if tensor is None else [int(n) for n in tensor.numpy().reshape(-1)]


def _linear_channels(value: ir.Value) -> int | None:
    """Channels of a linear layer's answer, also behind ReLU and reshapes; None for others."""
    producer = value.producer()
    while producer is not None and producer.op_type in ("Relu", "Reshape"):
        first = producer.inputs[0]
        producer = None if first is None else first.producer()
    if producer is None or producer.op_type not in ("Conv", "Gemm"):
        return None
    weight = producer.inputs[1]
    if weight is None or weight.const_value is None:
        return None
    shape = weight.const_value.numpy().shape
    if producer.op_type == "Gemm":
        return int(shape[0 if producer.attributes.get_int("transB", 0) else 1])
    # Of a picture of 1 x 1: a convolution of a larger one does not come as [M, C, 1, 1].
    return int(shape[0]) if shape[2:] == (1, 1) else None


class _Links:
    """Disjoint sets of values."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}

    def root(self, value: ir.Value) -> ir.Value:
        """The value that stands for its set."""
        self._parent.setdefault(value, value)
        while self._parent[value] is not value:
            self._parent[value] = self._parent[self._parent[value]]
            value = self._parent[value]
        return value

    def join(self, one: ir.Value, other: ir.Value) -> None:
        """Make one set of two."""
        self._parent[self.root(one)] = self.root(other)

    def values(self) -> list[ir.Value]:
        """All that were ever asked for."""
        return list(self._parent)


def _link_all(links: _Links, values: Iterable[ir.Value | None]) -> None:
    known = [v for v in values if v is not None and v.const_value is None]
    for value in known[1:]:
        links.join(known[0], value)
