"""Many rings as one, joined by cuts without width, for formats that have one ring per object.

From a ring to the next the outline goes along a straight cut and comes back along the same. By
the even-odd rule such a pair cancels everywhere, so the same points lie inside. Holes run the other
way round than exteriors, so it is the same by the non-zero rule.

Module legend: N vertices of the rings joined so far, K of the next.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from model.arrays import Float64
from runtime.masks.polygons import Polygon

_BLOCK_PAIRS = 1 << 20


def one_ring(polygons: Iterable[Polygon]) -> Float64:
    """All rings of some polygons as one, cut between the nearest vertices.

    Args:
        polygons: At least one.

    Returns:
        float64 [N, 2], not repeating its first point at the end.
    """
    rings = [ring for part in polygons for ring in (part.exterior, *part.holes)]
    joined = rings[0]
    for ring in rings[1:]:
        here, there = _nearest(joined, ring)
        around = np.concatenate((ring[there:], ring[: there + 1]))
        joined = np.concatenate((joined[: here + 1], around, joined[here:]))
    return joined


def _nearest(joined: Float64, ring: Float64) -> tuple[int, int]:
    """The first nearest pair of vertices, one of each."""
    best = (np.inf, 0, 0)
    step = max(1, _BLOCK_PAIRS // len(joined))
    for first in range(0, len(ring), step):
        block = ring[first : first + step]
        distance2 = (block[:, None, 0] - joined[:, 0]) ** 2
        distance2 += (block[:, None, 1] - joined[:, 1]) ** 2
        there, here = divmod(int(distance2.argmin()), len(joined))
        best = min(best, (float(distance2[there, here]), here, first + there))
    return best[1], best[2]
