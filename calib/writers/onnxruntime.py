"""Q/DQ for ONNX Runtime's integer kernels on a CPU: uint8 activations, int32 biases.

Its QLinearConv wants its input and its output in one type, and the answers of a ReLU are best held
in uint8 with zero point 0: twice the steps of int8, and the ReLU itself is saved, because the code
has no room below zero. Signed tensors get uint8 with zero point 128, which is int8 with zero
point 0 written in the other type.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from calib.graph.formats import Format
from calib.graph.layers import Layer, constant
from calib.graph.placement import Placement, Site
from calib.rounding.weights import Rounder, round_to_nearest
from calib.writers.pairs import (
    SIGNED_LEVELS,
    UNSIGNED_LEVELS,
    Constants,
    Ranges,
    drop_if_unused,
    scale_of,
    write_pair,
    write_weights,
)
from export.roles import ROLE_KEY
from model.arrays import Float32

_SIGNED_ZERO = 128
# A bias is added to sums in 32 bits; half the room is left for the sums themselves.
_BIAS_ROOM = 2**30


def write_for_onnxruntime(
    graph: ir.Graph,
    placement: Placement,
    form: Format,
    ranges: Ranges,
    rounder: Rounder = round_to_nearest,
) -> None:
    """Write a placement into the graph.

    Args:
        graph: changed in place.
        placement: of `calib.graph.placement.place_for_onnxruntime`, of this graph.
        form: int8; it has kernels for no other.
        ranges: the largest magnitude to represent, by tensor and steps.
        rounder: of the weights.
    """
    scales = {site.value: _scale(site, ranges) for site in placement.sites}
    data_scale = {layer.node: scales[layer.data] for layer in placement.layers}
    least = _least_scales(placement, data_scale)
    for site in placement.sites:
        zero = np.array(_SIGNED_ZERO if site.is_signed else 0, np.uint8)
        write_pair(graph, site, scales[site.value], ir.tensor(zero))
    weights = write_weights(graph, placement.layers, form, least, rounder)
    for layer in placement.layers:
        _write_bias(graph, layer, data_scale[layer.node], weights[layer.node].scales)
    graph.sort()


def _scale(site: Site, ranges: Ranges) -> np.float32:
    levels = SIGNED_LEVELS if site.is_signed else UNSIGNED_LEVELS
    return scale_of(ranges(str(site.range_of.name), levels), levels)


def _least_scales(
    placement: Placement, data_scale: Mapping[ir.Node, np.float32]
) -> dict[ir.Value, Float32]:
    """The smallest weight scales with which every bias fits, by weights (layers may share)."""
    found: dict[ir.Value, Float32] = {}
    for layer in placement.layers:
        if layer.bias is None or layer.bias.const_value is None:
            continue
        need = np.abs(constant(layer.bias)) / (_BIAS_ROOM * data_scale[layer.node])
        found[layer.weight] = np.maximum(need, found.get(layer.weight, np.float32(0.0)))
    return found


def _write_bias(
    graph: ir.Graph, layer: Layer, data_scale: np.float32, weight_scales: Float32
) -> None:
    """The bias in the unit of the integer sums, without which no kernel is merged."""
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
    node.outputs[0].name = f"{layer.output.name}_bias_dequantised"
    graph.insert_before(graph[0], node)
    layer.node.replace_input_with(2, node.outputs[0])
    drop_if_unused(graph, bias)
