"""Q/DQ for ONNX Runtime's integer kernels on a CPU: uint8 activations, int32 biases.

QLinearConv has one type for input and output. The output of a ReLU is best represented in uint8
with zero point 0, which has twice the steps of int8 and makes the ReLU redundant. Signed tensors
get uint8 with zero point 128, which is int8 with zero point 0 in the other type.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from calib.graph.formats import SIGNED_LEVELS, UNSIGNED_LEVELS, Format, Ranges
from calib.graph.layers import Layer, constant
from calib.graph.placement import Placement, Site
from calib.rounding.weights import WeightQuantizer
from calib.writers.pairs import Constants, drop_if_unused, scale_of, write_pair, write_weights
from export.roles import ROLE_KEY
from model.arrays import Float32

_SIGNED_ZERO = 128
# A bias is added to 32-bit sums; the other half of the range is left for the sums.
_LARGEST_BIAS = 2**30


def write_for_onnxruntime(
    graph: ir.Graph, placement: Placement, fmt: Format, ranges: Ranges, weights: WeightQuantizer
) -> None:
    """Write a placement into the graph.

    Args:
        graph: changed in place.
        placement: from `calib.graph.placement.place_for_onnxruntime`, of this graph.
        fmt: int8; there are kernels for no other.
        ranges: of the activations.
        weights: rounds them.
    """
    scales = {site.value: _scale(site, ranges) for site in placement.sites}
    data_scale = {layer.node: scales[layer.data] for layer in placement.layers}
    smallest = _smallest_scales(placement, data_scale)
    for site in placement.sites:
        zero = np.array(_SIGNED_ZERO if site.is_signed else 0, np.uint8)
        write_pair(graph, site, scales[site.value], ir.tensor(zero))
    written = write_weights(graph, placement.layers, fmt, weights, smallest)
    for layer in placement.layers:
        _write_bias(graph, layer, data_scale[layer.node], written[layer.node].scales)
    graph.sort()


def _scale(site: Site, ranges: Ranges) -> np.float32:
    levels = SIGNED_LEVELS if site.is_signed else UNSIGNED_LEVELS
    return scale_of(ranges(str(site.range_of.name), levels), levels)


def _smallest_scales(
    placement: Placement, data_scale: Mapping[ir.Node, np.float32]
) -> dict[ir.Value, Float32]:
    """The smallest weight scales with which every bias fits, by weights (layers may share)."""
    smallest: dict[ir.Value, Float32] = {}
    for layer in placement.layers:
        if layer.bias is None or layer.bias.const_value is None:
            continue
        scales = np.abs(constant(layer.bias)) / (_LARGEST_BIAS * data_scale[layer.node])
        smallest[layer.weight] = np.maximum(scales, smallest.get(layer.weight, np.float32(0.0)))
    return smallest


def _write_bias(
    graph: ir.Graph, layer: Layer, data_scale: np.float32, weight_scales: Float32
) -> None:
    """The bias in units of the integer sums; ONNX Runtime needs it to fuse an integer kernel."""
    bias = layer.bias
    if bias is None or bias.const_value is None:
        return
    step = (np.float32(data_scale) * weight_scales).astype(np.float32)
    constants, name = Constants(graph), bias.name
    inputs = [
        constants.add(f"{name}_int32", np.rint(constant(bias) / step).astype(np.int32)),
        constants.add(f"{name}_int32_scale", step),
        constants.add(f"{name}_int32_zero_point", np.zeros(step.shape, np.int32)),
    ]
    node = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{layer.node.name}_bias")
    node.metadata_props[ROLE_KEY] = layer.role
    node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, bias.shape
    node.outputs[0].name = f"{layer.output.name}_bias_dequantized"
    graph.insert_before(graph[0], node)
    layer.node.replace_input_with(2, node.outputs[0])
    drop_if_unused(graph, bias)
