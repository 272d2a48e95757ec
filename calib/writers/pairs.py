"""What both writers share: a Q/DQ pair on a tensor, 8-bit weights behind a DQ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.graph.formats import INT8, Format
from calib.graph.layers import Layer
from calib.graph.placement import Site
from calib.rounding.weights import (
    LEVELS,
    QuantisedWeights,
    Rounder,
    nearest_codes,
    round_to_nearest,
    weight_scales,
)
from export.roles import ROLE_KEY, role_of
from model.arrays import Float32
from model.errors import ArtifactError

# The largest magnitude that a tensor, by name, must hold, given the steps that the code has for it.
Ranges = Callable[[str, int], float]
# Largest code of a tensor's magnitude: int8 by halves, uint8 whole.
SIGNED_LEVELS, UNSIGNED_LEVELS = 127, 255
# Ranges that can be written. Below, a scale would be next to zero or subnormal; above, what a bias
# may hold in units of it, 2**30 times as much, is beyond float32.
SMALLEST_RANGE, LARGEST_RANGE = 1e-30, 1e30
# The smallest number of FP16; channels whose scale is smaller hold next to nothing.
_TINY_HALF = 2.0**-24
_LARGEST_HALF = float(np.finfo(np.float16).max)


class Constants:
    """Initialisers made on the way, each name once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph

    def add(self, name: str, array: npt.NDArray[np.generic] | ir.TensorProtocol) -> ir.Value:
        """An initialiser of that name, or of that name with a number behind it."""
        number, free = 0, name
        while free in self._graph.initializers:
            number += 1
            free = f"{name}_{number}"
        tensor = ir.tensor(array, name=free)
        value = ir.Value(
            name=free,
            shape=ir.Shape(tensor.numpy().shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.initializers[free] = value
        return value


def scale_of(largest: float, levels: int) -> np.float32:
    """The step of a symmetric code; a clipped range may be smaller than any that was seen."""
    return np.float32(max(largest, SMALLEST_RANGE) / levels)


def in_type_of(scales: npt.ArrayLike, value: ir.Value) -> npt.NDArray[np.generic]:
    """Scales in the type of the numbers they scale, as both operators demand.

    Raises:
        ArtifactError: a scale beyond FP16, which only an imported cache can have.
    """
    wide = np.asarray(scales, np.float32)
    if value.dtype != ir.DataType.FLOAT16:
        return wide
    if wide.max(initial=0.0) > _LARGEST_HALF:
        raise ArtifactError(
            f"tensor '{value.name}': a step of {wide.max():.3g} is beyond FP16; take --rest fp32"
        )
    return np.maximum(wide, _TINY_HALF).astype(np.float16)


def write_pair(graph: ir.Graph, site: Site, scale: np.float32, zero: ir.TensorProtocol) -> None:
    """Send the site's reads through QuantizeLinear and DequantizeLinear."""
    constants = Constants(graph)
    value, name = site.value, site.value.name
    step = constants.add(f"{name}_scale", in_type_of(scale, value))
    origin = constants.add(f"{name}_zero_point", zero)
    quantise = ir.node("QuantizeLinear", [value, step, origin], name=f"{name}_quantise")
    restore = ir.node(
        "DequantizeLinear", [quantise.outputs[0], step, origin], name=f"{name}_dequantise"
    )
    producer = value.producer()
    role = role_of(site.uses[0][0] if producer is None else producer)
    _name(quantise, f"{name}_quantised", role, ir.DataType(zero.dtype), value.shape)
    _name(restore, f"{name}_dequantised", role, value.dtype, value.shape)
    for node, index in site.uses:
        node.replace_input_with(index, restore.outputs[0])
    if producer is None:
        graph.insert_before(graph[0], [quantise, restore])
    else:
        graph.insert_after(producer, [quantise, restore])


def write_weights(
    graph: ir.Graph,
    layers: Sequence[Layer],
    form: Format = INT8,
    least: Mapping[ir.Value, Float32] | None = None,
    rounder: Rounder = round_to_nearest,
) -> dict[ir.Node, QuantisedWeights]:
    """Put 8-bit weights and a DequantizeLinear in the place of every layer's weights.

    Args:
        graph: the layers'.
        layers: whose weights are replaced; those that share them go on sharing.
        form: of the codes.
        least: the smallest scales that weights may have.
        rounder: from weights and scales to integers.

    Returns:
        the codes and scales, by the layer's node.
    """
    made: dict[ir.Value, tuple[QuantisedWeights, ir.Value]] = {}
    found: dict[ir.Node, QuantisedWeights] = {}
    for layer in layers:
        original = layer.weight
        if original not in made:
            floor = None if least is None else least.get(original)
            weights = _quantised(layer, form, floor, rounder)
            made[original] = weights, _restored(graph, layer, weights, form)
        found[layer.node], restored = made[original]
        layer.node.replace_input_with(1, restored)
        drop_if_unused(graph, original)
    return found


def _quantised(
    layer: Layer, form: Format, least: Float32 | None, rounder: Rounder
) -> QuantisedWeights:
    """Scales in the weights' own type, and codes that fit those scales."""
    if form.is_integer:
        wide = weight_scales(
            layer.weights, layer.scale_axis, least=least, levels=form.weight_levels
        )
    else:  # a float has the same relative error everywhere: nothing to clip
        wide = weight_scales(layer.weights, layer.scale_axis, search=False)
        wide = wide * np.float32(LEVELS / form.weight_levels)
    scales = in_type_of(wide, layer.weight).astype(np.float32)
    if form.is_integer:
        codes = rounder(layer, scales, form.weight_levels)
    else:
        codes = nearest_codes(layer, scales, form)
    return QuantisedWeights(codes, scales, layer.scale_axis)


def _restored(graph: ir.Graph, layer: Layer, weights: QuantisedWeights, form: Format) -> ir.Value:
    """What a DequantizeLinear makes of the codes."""
    constants, name = Constants(graph), layer.weight.name
    inputs = [
        constants.add(f"{name}_{form.name}", ir.tensor(weights.codes, form.type)),
        constants.add(f"{name}_scale", in_type_of(weights.scales, layer.weight)),
        constants.add(f"{name}_zero_point", ir.tensor(form.zero(weights.scales.shape), form.type)),
    ]
    attributes = {} if weights.axis is None else {"axis": weights.axis}
    node = ir.node("DequantizeLinear", inputs, attributes, name=f"{name}_dequantise")
    _name(node, f"{name}_dequantised", layer.role, layer.weight.dtype, layer.weight.shape)
    # First of all nodes: layers that share weights come in any order.
    graph.insert_before(graph[0], node)
    return node.outputs[0]


def drop_if_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Remove an initialiser that nothing reads any more."""
    if not value.uses():
        graph.initializers.pop(str(value.name), None)


def _name(
    node: ir.Node, output: str, role: str, dtype: ir.DataType | None, shape: ir.Shape | None
) -> None:
    node.metadata_props[ROLE_KEY] = role
    answer = node.outputs[0]
    answer.name, answer.shape = output, shape
    if dtype is not None:
        answer.dtype = dtype
