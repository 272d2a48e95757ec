"""Outlines of binary masks as polygons with holes, directly from a crop.

Parts are those of `runtime.masks.boundary`: 4-connected. A point is in a part if a ray from it
crosses the part's rings an odd number of times.

A simplified outline goes through the midpoints of the boundary's edges, at least sqrt(1/8) = 0.353
px from every pixel's center, and then along chords of it (Douglas-Peucker, all rings at once, a
level of the recursion per step). Moving a piece of the outline onto its chord moves no point of it
by more than the tolerance. Below 0.353 px it passes over no center: the simplified outline holds
the centers of exactly the same pixels, and no two pieces of it can meet.

Module legend: E boundary edges, R rings, P points of all rings together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.arrays import Float64, Int64
from model.errors import UsageError
from runtime.masks.boundary import STEP_X, STEP_Y, Rings, exteriors, trace
from runtime.masks.paste import MaskCrop
from runtime.masks.simplify import douglas_peucker, run_starts

# Below sqrt(1/8) by far more than float64 rounds.
SAME_PIXELS_PX = 0.35


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One connected part of a mask, in original-image pixels.

    Attributes:
        exterior: float64 [N, 2], x and y of a closed ring without its first point repeated,
            clockwise on a screen.
        holes: Background rings inside it, counterclockwise, float64 [N, 2] each.
    """

    exterior: Float64
    holes: tuple[Float64, ...] = ()

    @property
    def area_px(self) -> float:
        """Area of the exterior minus the holes."""
        return float(sum(signed_area(ring) for ring in (self.exterior, *self.holes)))


def outlines(crops: Sequence[MaskCrop], tolerance_px: float = 0.0) -> list[list[Polygon]]:
    """The parts of each mask, largest exterior first.

    Args:
        crops: The masks.
        tolerance_px: How far an outline may be moved; 0 follows the pixels' edges exactly, up to
            `SAME_PIXELS_PX` the same pixels' centers lie inside.

    Raises:
        UsageError: The tolerance is negative or not finite.
    """
    if not (math.isfinite(tolerance_px) and tolerance_px >= 0):
        raise UsageError(
            f"polygons: expected a tolerance of 0 pixels or more, got {tolerance_px}; "
            f"{SAME_PIXELS_PX} keeps every pixel"
        )
    result: list[list[Polygon]] = [[] for _ in crops]
    rings = trace(crops)
    if not rings.first.size:
        return result
    points, first = _corners(rings) if tolerance_px == 0 else _chords(rings, tolerance_px)
    parts: dict[int, list[Float64]] = {}
    split = np.split(points, first[1:])
    for ring, exterior in enumerate(exteriors(rings).tolist()):
        # The exterior comes first, whatever its index.
        parts.setdefault(exterior, [split[exterior]])
        if ring != exterior:
            parts[exterior].append(split[ring])
    mask = rings.edges.mask[rings.first].tolist()
    for exterior, (outer, *holes) in parts.items():
        result[mask[exterior]].append(Polygon(outer, tuple(holes)))
    for polygons in result:
        polygons.sort(key=lambda part: -signed_area(part.exterior))
    return result


def signed_area(ring: Float64) -> float:
    """Shoelace area of float64 [N, 2]; positive for a ring clockwise on a screen."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def _corners(rings: Rings) -> tuple[Float64, Int64]:
    """Float64 where a ring turns, float64 [P, 2], and the index of each ring's first."""
    direction = rings.edges.direction
    turns = direction != direction[rings.previous()]
    points = np.stack((rings.edges.x[turns], rings.edges.y[turns]), axis=1).astype(np.float64)
    return points, run_starts(rings.of_edge[turns])


def _chords(rings: Rings, tolerance_px: float) -> tuple[Float64, Int64]:
    """Midpoints of edges, simplified: float64 [P, 2], and the index of each ring's first."""
    x = rings.edges.x + STEP_X[rings.edges.direction] / 2
    y = rings.edges.y + STEP_Y[rings.edges.direction] / 2
    keep = douglas_peucker(x, y, rings.first, tolerance_px)
    count = np.bincount(rings.of_edge[keep], minlength=rings.first.size)
    # A small ring could collapse to a line; simplify it less.
    if tolerance_px > SAME_PIXELS_PX and (count < 3).any():
        finer = douglas_peucker(x, y, rings.first, SAME_PIXELS_PX)
        keep = np.where((count < 3)[rings.of_edge], finer, keep)
    return np.stack((x[keep], y[keep]), axis=1), run_starts(rings.of_edge[keep])
