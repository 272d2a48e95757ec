"""What both writers share: a Q/DQ pair on a tensor, 8-bit weights behind a DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.graph.formats import SMALLEST_RANGE, Format, scales_in_dtype_of
from calib.graph.layers import Layer
from calib.graph.placement import Site
from calib.rounding.weights import QuantizedWeights, WeightQuantizer
from export.roles import ROLE_KEY, role_of
from model.arrays import Float32


class Constants:
    """Adds initializers under unused names."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph

    def add(self, name: str, array: npt.NDArray[np.generic] | ir.TensorProtocol) -> ir.Value:
        """An initializer of that name, with a number appended if it is in use."""
        number, unused = 0, name
        while unused in self._graph.initializers:
            number += 1
            unused = f"{name}_{number}"
        tensor = ir.tensor(array, name=unused)
        value = ir.Value(
            name=unused,
            shape=ir.Shape(tensor.numpy().shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.initializers[unused] = value
        return value


def scale_of(largest: float, levels: int) -> np.float32:
    """The scale of a symmetric format, never zero."""
    return np.float32(max(largest, SMALLEST_RANGE) / levels)


def write_pair(graph: ir.Graph, site: Site, scale: np.float32, zero: ir.TensorProtocol) -> None:
    """Route the site's uses through QuantizeLinear and DequantizeLinear."""
    constants = Constants(graph)
    value, name = site.value, site.value.name
    step = constants.add(f"{name}_scale", scales_in_dtype_of(value, scale))
    origin = constants.add(f"{name}_zero_point", zero)
    quantize = ir.node("QuantizeLinear", [value, step, origin], name=f"{name}_quantize")
    dequantize = ir.node(
        "DequantizeLinear", [quantize.outputs[0], step, origin], name=f"{name}_dequantize"
    )
    producer = value.producer()
    role = role_of(site.uses[0][0] if producer is None else producer)
    _describe(quantize, f"{name}_quantized", role, ir.DataType(zero.dtype), value.shape)
    _describe(dequantize, f"{name}_dequantized", role, value.dtype, value.shape)
    for node, index in site.uses:
        node.replace_input_with(index, dequantize.outputs[0])
    if producer is None:
        graph.insert_before(graph[0], [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])


def write_weights(
    graph: ir.Graph,
    layers: Sequence[Layer],
    fmt: Format,
    quantizer: WeightQuantizer,
    smallest_scales: Mapping[ir.Value, Float32] | None = None,
) -> dict[ir.Node, QuantizedWeights]:
    """Replace every layer's weights by 8-bit weights and a DequantizeLinear.

    Args:
        graph: the layers'.
        layers: whose weights are replaced; layers that share weights share the codes.
        fmt: of the codes.
        quantizer: of the weights.
        smallest_scales: lower bounds of the scales.

    Returns:
        the codes and scales, by the layer's node.
    """
    bounds = smallest_scales or {}
    replaced: dict[ir.Value, tuple[QuantizedWeights, ir.Value]] = {}
    written: dict[ir.Node, QuantizedWeights] = {}
    for layer in layers:
        original = layer.weight
        if original not in replaced:
            weights = quantizer.quantize(layer, fmt, bounds.get(original))
            replaced[original] = weights, _dequantized(graph, layer, weights, fmt)
        written[layer.node], value = replaced[original]
        layer.node.replace_input_with(1, value)
        drop_if_unused(graph, original)
    return written


def _dequantized(graph: ir.Graph, layer: Layer, weights: QuantizedWeights, fmt: Format) -> ir.Value:
    """The output of a DequantizeLinear of the codes."""
    constants, name = Constants(graph), layer.weight.name
    inputs = [
        constants.add(f"{name}_{fmt.name}", ir.tensor(weights.codes, fmt.type)),
        constants.add(f"{name}_scale", scales_in_dtype_of(layer.weight, weights.scales)),
        constants.add(f"{name}_zero_point", ir.tensor(fmt.zero(weights.scales.shape), fmt.type)),
    ]
    attributes = {} if weights.axis is None else {"axis": weights.axis}
    node = ir.node("DequantizeLinear", inputs, attributes, name=f"{name}_dequantize")
    _describe(node, f"{name}_dequantized", layer.role, layer.weight.dtype, layer.weight.shape)
    # First of all nodes: layers that share weights come in any order.
    graph.insert_before(graph[0], node)
    return node.outputs[0]


def drop_if_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Remove an initializer without uses."""
    if not value.uses():
        graph.initializers.pop(str(value.name), None)


def _describe(
    node: ir.Node, output: str, role: str, dtype: ir.DataType | None, shape: ir.Shape | None
) -> None:
    node.metadata_props[ROLE_KEY] = role
    value = node.outputs[0]
    value.name, value.shape = output, shape
    if dtype is not None:
        value.dtype = dtype
