"""What the observers saw of the tensors that a file quantises, to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calib.placement import Placement
from calib.table import Table
from calib.writers.pairs import SIGNED_LEVELS, UNSIGNED_LEVELS
from export.passes.tag_roles import role_of


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Magnitudes of one tensor on all calibration photos.

    Attributes:
        name: of the tensor in the FP32 file.
        role: of the part of the network that made it.
        counts: int64 [bins] of |x|, from zero, each `bin_width` wide.
        largest: magnitude that came.
        kept: magnitude that the last step of the code stands for; what is beyond is clipped.
        levels: steps of the code above zero.
    """

    name: str
    role: str
    counts: npt.NDArray[np.int64]
    bin_width: float
    largest: float
    kept: float
    levels: int

    @property
    def clipped(self) -> float:
        """Share of the numbers beyond `kept`, to a bin's width."""
        first = int(np.ceil(self.kept / self.bin_width))
        total = int(self.counts.sum())
        return float(self.counts[first:].sum() / total) if total else 0.0


def seen(placement: Placement, table: Table) -> tuple[Seen, ...]:
    """One for each tensor that is quantised, in the order of the graph; none by ranges alone."""
    levels: dict[str, int] = {}
    roles: dict[str, str] = {}
    for site in placement.sites:
        name, producer = str(site.range_of.name), site.range_of.producer()
        # A tensor that is read in both codes is shown with the finer one.
        steps = SIGNED_LEVELS if site.is_signed else UNSIGNED_LEVELS
        levels[name] = max(steps, levels.get(name, 0))
        roles[name] = role_of(site.uses[0][0] if producer is None else producer)
    found = []
    for name, steps in levels.items():
        histogram = table.histogram(name)
        if histogram is not None:
            found.append(
                Seen(
                    name,
                    roles[name],
                    histogram.counts,
                    histogram.width,
                    histogram.maximum,
                    table.largest(name, steps),
                    steps,
                )
            )
    return tuple(found)
