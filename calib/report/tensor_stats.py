"""What the observers saw of the tensors that a file quantises, to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.calibration.table import Table
from calib.graph.layers import constant
from calib.graph.placement import Placement, Site
from export.roles import role_of

# The largest code above zero, by type; uint8 has it from its zero point.
_LARGEST = {ir.DataType.INT8: 127.0, ir.DataType.FLOAT8E4M3FN: 448.0}


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Magnitudes of one tensor on all calibration photos.

    Attributes:
        name: of the tensor in the FP32 file.
        role: of the part of the network that made it.
        counts: int64 [bins] of |x|, from zero, each `bin_width` wide.
        largest: magnitude that came.
        kept: magnitude that the largest code stands for; what is beyond is clipped.
        code: the code above zero, for people.
    """

    name: str
    role: str
    counts: npt.NDArray[np.int64]
    bin_width: float
    largest: float
    kept: float
    code: str

    @property
    def clipped(self) -> float:
        """Share of the numbers beyond `kept`, to a bin's width."""
        first = int(np.ceil(self.kept / self.bin_width))
        total = int(self.counts.sum())
        return float(self.counts[first:].sum() / total) if total else 0.0


def seen(placement: Placement, table: Table) -> tuple[Seen, ...]:
    """One for each range that is used, in the order of the graph; none where nothing was counted.

    Args:
        placement: written: its readers read through DequantizeLinear, whose scale is told.
        table: of the ranges.
    """
    sites: dict[str, Site] = {}
    for site in placement.sites:
        sites.setdefault(str(site.range_of.name), site)
    found = []
    for name, site in sites.items():
        histogram = table.histogram(name)
        if histogram is None:
            continue
        producer = site.range_of.producer()
        role = role_of(site.uses[0][0] if producer is None else producer)
        counts, width, largest = histogram.counts, histogram.width, histogram.maximum
        found.append(Seen(name, role, counts, width, largest, *_code(site)))
    return tuple(found)


def _code(site: Site) -> tuple[float, str]:
    """The magnitude of the largest code of a written site, and what the code is."""
    reader, index = site.uses[0]
    restored = reader.inputs[index]
    restore = None if restored is None else restored.producer()
    assert restore is not None
    assert restore.op_type == "DequantizeLinear"
    _, scale, zero = restore.inputs
    assert scale is not None
    assert zero is not None
    assert zero.const_value is not None
    step, kind = float(constant(scale)), ir.DataType(zero.const_value.dtype)
    largest = _LARGEST.get(kind) or 255.0 - float(constant(zero))
    steps = "E4M3" if kind == ir.DataType.FLOAT8E4M3FN else f"{largest:g} steps"
    return step * largest, steps
