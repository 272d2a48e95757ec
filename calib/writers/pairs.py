"""What both writers share: a Q/DQ pair on a tensor, int8 weights behind a DQ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.layers import Layer
from calib.placement import Site
from calib.weights import Float32, QuantisedWeights, quantise_weights
from export.passes.tag_roles import ROLE_KEY, role_of

# The largest magnitude that a tensor, by name, must hold, given the steps that the code has for it.
Ranges = Callable[[str, int], float]
# Largest code of a tensor's magnitude: int8 by halves, uint8 whole.
SIGNED_LEVELS, UNSIGNED_LEVELS = 127, 255
# No float32 scale may become zero or subnormal.
_TINY = 1e-30


class Constants:
    """Initialisers made on the way, each name once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph

    def add(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """An initialiser of that name, or of that name with a number behind it."""
        number, free = 0, name
        while free in self._graph.initializers:
            number += 1
            free = f"{name}_{number}"
        tensor = ir.tensor(array, name=free)
        value = ir.Value(
            name=free,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.initializers[free] = value
        return value


def scale_of(largest: float, levels: int) -> np.float32:
    """The step of a symmetric code; a tensor that was always zero gets some step."""
    return np.float32(max(largest, _TINY) / levels)


def write_pair(
    graph: ir.Graph, site: Site, scale: np.float32, zero: npt.NDArray[np.generic]
) -> None:
    """Send the site's reads through QuantizeLinear and DequantizeLinear."""
    constants = Constants(graph)
    value, name = site.value, site.value.name
    step = constants.add(f"{name}_scale", np.asarray(scale, np.float32))
    origin = constants.add(f"{name}_zero_point", zero)
    quantise = ir.node("QuantizeLinear", [value, step, origin], name=f"{name}_quantise")
    restore = ir.node(
        "DequantizeLinear", [quantise.outputs[0], step, origin], name=f"{name}_dequantise"
    )
    producer = value.producer()
    role = role_of(site.uses[0][0] if producer is None else producer)
    _name(quantise, f"{name}_quantised", role, ir.DataType(ir.tensor(zero).dtype), value.shape)
    _name(restore, f"{name}_dequantised", role, ir.DataType.FLOAT, value.shape)
    for node, index in site.uses:
        node.replace_input_with(index, restore.outputs[0])
    if producer is None:
        graph.insert_before(graph[0], [quantise, restore])
    else:
        graph.insert_after(producer, [quantise, restore])


def write_weights(
    graph: ir.Graph, layers: Sequence[Layer], least: Mapping[ir.Value, Float32] | None = None
) -> dict[ir.Node, QuantisedWeights]:
    """Put int8 weights and a DequantizeLinear in the place of every layer's weights.

    Args:
        graph: the layers'.
        layers: whose weights are replaced; those that share them go on sharing.
        least: the smallest scales that weights may have.

    Returns:
        the integers and scales, by the layer's node.
    """
    made: dict[ir.Value, tuple[QuantisedWeights, ir.Value]] = {}
    found: dict[ir.Node, QuantisedWeights] = {}
    for layer in layers:
        original = layer.weight
        if original not in made:
            floor = None if least is None else least.get(original)
            weights = quantise_weights(layer.weights, layer.scale_axis, least=floor)
            made[original] = weights, _restored(graph, layer, weights)
        found[layer.node], restored = made[original]
        layer.node.replace_input_with(1, restored)
        drop_if_unused(graph, original)
    return found


def _restored(graph: ir.Graph, layer: Layer, weights: QuantisedWeights) -> ir.Value:
    """What a DequantizeLinear makes of the integers."""
    constants, name = Constants(graph), layer.weight.name
    inputs = [
        constants.add(f"{name}_int8", weights.integers),
        constants.add(f"{name}_scale", weights.scales),
        constants.add(f"{name}_zero_point", np.zeros(weights.scales.shape, np.int8)),
    ]
    attributes = {} if weights.axis is None else {"axis": weights.axis}
    node = ir.node("DequantizeLinear", inputs, attributes, name=f"{name}_dequantise")
    _name(node, f"{name}_dequantised", layer.role, ir.DataType.FLOAT, layer.weight.shape)
    # First of all nodes: layers that share weights come in any order.
    graph.insert_before(graph[0], node)
    return node.outputs[0]


def drop_if_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Remove an initialiser that nothing reads any more."""
    if not value.uses():
        graph.initializers.pop(str(value.name), None)


def _name(
    node: ir.Node, output: str, role: str, dtype: ir.DataType, shape: ir.Shape | None
) -> None:
    node.metadata_props[ROLE_KEY] = role
    answer = node.outputs[0]
    answer.name, answer.dtype, answer.shape = output, dtype, shape
