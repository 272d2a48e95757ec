"""Q/DQ for TensorRT: int8, zero point 0, biases left in floating point."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calib.placement import Placement
from calib.writers.pairs import SIGNED_LEVELS, Ranges, scale_of, write_pair, write_weights


def write_for_tensorrt(graph: ir.Graph, placement: Placement, ranges: Ranges) -> None:
    """Write a placement into the graph.

    Args:
        graph: changed in place.
        placement: of `calib.placement.place_for_tensorrt`, of this graph.
        ranges: the largest magnitude to represent, by tensor and steps.
    """
    for site in placement.sites:
        scale = scale_of(ranges(str(site.range_of.name), SIGNED_LEVELS), SIGNED_LEVELS)
        write_pair(graph, site, scale, np.array(0, np.int8))
    write_weights(graph, placement.layers)
    graph.sort()
