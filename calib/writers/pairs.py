"""What both writers share: a Q/DQ pair on a tensor, int8 weights behind a DQ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.layers import Layer
from calib.placement import Site
from calib.weights import QuantisedWeights
from export.passes.tag_roles import ROLE_KEY, role_of

# The largest magnitude that a tensor, by name, must hold, given the steps that the code has for it.
Ranges = Callable[[str, int], float]
# Largest code of a tensor's magnitude: int8 by halves, uint8 whole.
SIGNED_LEVELS, UNSIGNED_LEVELS = 127, 255


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
    return np.float32(max(largest, np.finfo(np.float32).tiny * 1e6) / levels)


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
    graph: ir.Graph, layer: Layer, weights: QuantisedWeights, made: dict[ir.Value, ir.Value]
) -> None:
    """Put int8 weights and a DequantizeLinear in the place of a layer's weights.

    Args:
        graph: the layer's.
        layer: whose weights are replaced; layers that share them share the result.
        weights: what replaces them.
        made: filled: the DQ's answer by the weights that it stands for.
    """
    original = layer.weight
    if original not in made:
        constants = Constants(graph)
        name = original.name
        inputs = [
            constants.add(f"{name}_int8", weights.integers),
            constants.add(f"{name}_scale", weights.scales),
            constants.add(f"{name}_zero_point", np.zeros(weights.scales.shape, np.int8)),
        ]
        attributes = {} if weights.axis is None else {"axis": weights.axis}
        node = ir.node("DequantizeLinear", inputs, attributes, name=f"{name}_dequantise")
        _name(node, f"{name}_dequantised", layer.role, ir.DataType.FLOAT, original.shape)
        # First of all nodes: shared weights are read by layers in any order.
        graph.insert_before(graph[0], node)
        made[original] = node.outputs[0]
    layer.node.replace_input_with(1, made[original])
    drop_if_unused(graph, original)


def drop_if_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Remove an initialiser that nothing reads any more."""
    if not value.uses() and value.name in graph.initializers:
        graph.initializers.pop(value.name)


def _name(
    node: ir.Node, output: str, role: str, dtype: ir.DataType, shape: ir.Shape | None
) -> None:
    node.metadata_props[ROLE_KEY] = role
    answer = node.outputs[0]
    answer.name, answer.dtype, answer.shape = output, dtype, shape
