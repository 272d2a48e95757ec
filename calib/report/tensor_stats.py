"""Magnitudes and ranges of the quantized tensors, from the calibration table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from calib.calibration.table import Table
from calib.graph.layers import constant
from calib.graph.placement import Placement, Site
from export.roles import role_of
from model.arrays import Int64

# The largest code above zero; uint8's depends on its zero point.
_LARGEST = {ir.DataType.INT8: 127.0, ir.DataType.FLOAT8E4M3FN: 448.0}


@dataclass(frozen=True, slots=True, eq=False)
class TensorHistogram:
    """Magnitudes of one tensor on all calibration photos.

    Attributes:
        name: of the tensor in the FP32 file.
        role: of the part of the network that computes it.
        counts: int64 [bins] of |x|, from zero, each `bin_width` wide.
        largest: magnitude observed.
        limit: magnitude of the largest code; larger values are clipped.
        code: the levels above zero, for display.
    """

    name: str
    role: str
    counts: Int64
    bin_width: float
    largest: float
    limit: float
    code: str

    @property
    def clipped(self) -> float:
        """Fraction of the values beyond `limit`, to a bin's width."""
        first = int(np.ceil(self.limit / self.bin_width))
        total = int(self.counts.sum())
        return float(self.counts[first:].sum() / total) if total else 0.0


def tensor_histograms(placement: Placement, table: Table) -> tuple[TensorHistogram, ...]:
    """One for each range in use, in the order of the graph; none for methods without counts.

    Args:
        placement: written into its graph, so that uses read through a DequantizeLinear.
        table: of the ranges.
    """
    sites: dict[str, Site] = {}
    for site in placement.sites:
        sites.setdefault(str(site.range_of.name), site)
    histograms = []
    for name, site in sites.items():
        histogram = table.histogram(name)
        if histogram is None:
            continue
        producer = site.range_of.producer()
        role = role_of(site.uses[0][0] if producer is None else producer)
        counts, width, largest = histogram.counts, histogram.width, histogram.maximum
        histograms.append(TensorHistogram(name, role, counts, width, largest, *_limit(site)))
    return tuple(histograms)


def _limit(site: Site) -> tuple[float, str]:
    """The magnitude of the largest code of a written site, and its levels for display."""
    reader, index = site.uses[0]
    value = reader.inputs[index]
    dequantize = None if value is None else value.producer()
    assert dequantize is not None
    assert dequantize.op_type == "DequantizeLinear"
    _, scale, zero = dequantize.inputs
    assert scale is not None
    assert zero is not None
    assert zero.const_value is not None
    step, dtype = float(constant(scale)), ir.DataType(zero.const_value.dtype)
    largest = _LARGEST.get(dtype) or 255.0 - float(constant(zero))
    levels = "E4M3" if dtype == ir.DataType.FLOAT8E4M3FN else f"{largest:g} steps"
    return step * largest, levels
