"""Q/DQ for TensorRT: int8 or FP8, zero point 0, biases left in floating point."""

from __future__ import annotations

import onnx_ir as ir

from calib.graph.formats import Format, Ranges
from calib.graph.placement import Placement
from calib.rounding.weights import WeightQuantizer
from calib.writers.pairs import scale_of, write_pair, write_weights


def write_for_tensorrt(
    graph: ir.Graph, placement: Placement, fmt: Format, ranges: Ranges, weights: WeightQuantizer
) -> None:
    """Write a placement into the graph.

    Args:
        graph: changed in place.
        placement: from `calib.graph.placement.place_for_tensorrt`, of this graph.
        fmt: of activations and weights.
        ranges: of the activations.
        weights: rounds them.
    """
    for site in placement.sites:
        scale = scale_of(fmt.largest(ranges, str(site.range_of.name)), fmt.levels)
        write_pair(graph, site, scale, ir.tensor(fmt.zero(), fmt.type))
    write_weights(graph, placement.layers, fmt, weights)
    graph.sort()
