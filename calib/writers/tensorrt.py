"""Q/DQ for TensorRT: int8 or FP8, zero point 0, biases left in floating point."""

from __future__ import annotations

import onnx_ir as ir

from calib.graph.formats import Format
from calib.graph.placement import Placement
from calib.rounding.weights import Rounder, round_to_nearest
from calib.writers.pairs import Ranges, scale_of, write_pair, write_weights


def write_for_tensorrt(
    graph: ir.Graph,
    placement: Placement,
    form: Format,
    ranges: Ranges,
    rounder: Rounder = round_to_nearest,
) -> None:
    """Write a placement into the graph.

    Args:
        graph: changed in place.
        placement: of `calib.graph.placement.place_for_tensorrt`, of this graph.
        form: of the codes.
        ranges: the largest magnitude to represent, by tensor and steps.
        rounder: of the weights.
    """
    for site in placement.sites:
        scale = scale_of(form.largest(ranges, str(site.range_of.name)), form.levels)
        write_pair(graph, site, scale, ir.tensor(form.zero(), form.type))
    write_weights(graph, placement.layers, form, rounder=rounder)
    graph.sort()
