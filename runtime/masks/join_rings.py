"""Rings joined into one by cuts of zero width, for formats that have one ring per object.

The outline goes to the next ring along a straight cut and returns along the same one. By the
even-odd rule the two cancel, so the same points lie inside. Holes run in the opposite direction to
exteriors, so the same holds for the non-zero rule.

Module legend: N vertices of the joined rings, K of the next.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from model.arrays import Float64
from runtime.masks.polygons import Polygon

_BLOCK_PAIRS = 1 << 20


def to_single_ring(polygons: Iterable[Polygon]) -> Float64:
    """Join all rings of some polygons at the nearest vertices.

    Args:
        polygons: At least one.

    Returns:
        float64 [N, 2], without the first point repeated at the end.
    """
    rings = [ring for part in polygons for ring in (part.exterior, *part.holes)]
    joined = rings[0]
    for ring in rings[1:]:
        at, start = _nearest(joined, ring)
        closed = np.concatenate((ring[start:], ring[: start + 1]))
        joined = np.concatenate((joined[: at + 1], closed, joined[at:]))
    return joined


def _nearest(joined: Float64, ring: Float64) -> tuple[int, int]:
    """Indices of the first nearest pair of vertices, one of each."""
    best = (np.inf, 0, 0)
    step = max(1, _BLOCK_PAIRS // len(joined))
    for first in range(0, len(ring), step):
        block = ring[first : first + step]
        distance2 = (block[:, None, 0] - joined[:, 0]) ** 2
        distance2 += (block[:, None, 1] - joined[:, 1]) ** 2
        row, column = divmod(int(distance2.argmin()), len(joined))
        best = min(best, (float(distance2[row, column]), column, first + row))
    return best[1], best[2]
