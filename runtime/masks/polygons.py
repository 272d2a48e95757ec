"""Outlines of binary masks as polygons with holes, directly from a crop.

Foreground is 4-connected: two pixels that touch only at a corner belong to two parts, while such
holes are one. A point is in a part if a ray from it crosses the part's rings an odd number of
times.

The boundary consists of unit edges between a foreground and a background pixel, directed so that
the foreground lies to the right. Each edge ends where another begins, so linking them is a
permutation, computed with two sorts. Its cycles, the rings, are ordered by pointer doubling (1, 2,
4, ... edges ahead): log2(E) steps of NumPy instead of E of Python.

A simplified outline goes through the midpoints of these edges, at least sqrt(1/8) = 0.353 px from
every pixel's center, and then along chords of it (Douglas-Peucker, all rings at once, a level of
the recursion per step). Moving a piece of the outline onto its chord moves no point of it by more
than the tolerance. Below 0.353 px it passes over no center: the simplified outline holds exactly
the same pixels, and no two pieces of it can meet.

Module legend: E boundary edges, R rings, P points of all rings together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.arrays import Float64, Int64
from model.errors import UsageError
from runtime.masks.paste import MaskCrop
from runtime.masks.simplify import douglas_peucker, run_lengths, run_starts

# Below sqrt(1/8) by far more than float64 rounds, and by more than seven decimals of a normalized
# coordinate round in an image of 65,000 pixels.
SAME_PIXELS_PX = 0.35

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEP_X = np.array([1, 0, -1, 0])
_STEP_Y = np.array([0, 1, 0, -1])


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


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Boundary edges of all masks, int64 [E] each: mask, start and direction."""

    mask: Int64
    x: Int64
    y: Int64
    direction: Int64


@dataclass(frozen=True, slots=True, eq=False)
class _Rings:
    """Boundary edges ring after ring, those of a mask together.

    `first` is int64 [R], the first edge of each ring; `of_edge` int64 [E], the ring of each edge.
    """

    edges: _Edges
    first: Int64
    of_edge: Int64


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
    edges = _boundary(crops)
    if not edges.x.size:
        return result
    rings = _trace(edges)
    points, first = _corners(rings) if tolerance_px == 0 else _chords(rings, tolerance_px)
    parts: dict[int, list[Float64]] = {}
    split = np.split(points, first[1:])
    for ring, exterior in enumerate(_exteriors(rings).tolist()):
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


def _boundary(crops: Sequence[MaskCrop]) -> _Edges:
    """The unit edges between foreground and background, the foreground on their right."""
    none = np.empty(0, np.int64)
    edges = [(none, none, none, none)]
    for mask, crop in enumerate(crops):
        width, height = crop.columns.shape
        if not crop.columns.size:
            continue
        padded = np.zeros((width + 2, height + 2), np.bool_)
        padded[1:-1, 1:-1] = crop.columns
        across = padded[1:-1, 1:] != padded[1:-1, :-1]
        down = padded[1:, 1:-1] != padded[:-1, 1:-1]
        x_h, y_h = np.divmod(np.flatnonzero(across), height + 1)
        x_v, y_v = np.divmod(np.flatnonzero(down), height)
        is_top, is_left = padded[x_h + 1, y_h + 1], padded[x_v + 1, y_v + 1]
        x = np.concatenate((x_h + ~is_top, x_v)) + crop.x0_px
        y = np.concatenate((y_h, y_v + is_left)) + crop.y0_px
        direction = np.concatenate((np.where(is_top, _RIGHT, _LEFT), np.where(is_left, _UP, _DOWN)))
        edges.append((np.full(x.size, mask), x, y, direction))
    return _Edges(*map(np.concatenate, zip(*edges, strict=True)))


def _trace(edges: _Edges) -> _Rings:
    """Link the edges to rings."""
    x, y, direction = edges.x, edges.y, edges.direction
    span = int(y.max()) + 2
    start = (edges.mask * (int(x.max()) + 2) + x) * span + y
    end = start + _STEP_X[direction] * span + _STEP_Y[direction]
    # Where two pixels touch at a corner, two edges arrive and two leave. A turn to the right stays
    # with the same pixel, so the edge that arrives with direction d continues with d + 1, which is
    # the order of these keys. Elsewhere one arrives and one leaves.
    following = np.empty(x.size, np.int64)
    following[np.argsort(end * 4 + direction)] = np.argsort(start * 4 + (direction - 1) % 4)
    smallest, order = _cycles(following)
    first = run_starts(smallest[order])
    of_edge = np.repeat(np.arange(first.size), run_lengths(first, x.size))
    return _Rings(_Edges(edges.mask[order], x[order], y[order], direction[order]), first, of_edge)


def _cycles(following: Int64) -> tuple[Int64, Int64]:
    """The cycles of a permutation.

    Returns:
        The smallest member of each element's cycle; all elements, cycle after cycle, each in order
        from its smallest member.
    """
    size = following.size
    smallest, ahead = np.arange(size), following
    for _ in range(size.bit_length()):
        smallest = np.minimum(smallest, smallest[ahead])
        ahead = ahead[ahead]
    # Cut each cycle before its smallest member and count the steps to the cut.
    is_last = following == smallest
    ahead = np.where(is_last, np.arange(size), following)
    steps = (~is_last).astype(np.int64)
    for _ in range(size.bit_length()):
        steps = steps + steps[ahead]
        ahead = ahead[ahead]
    return smallest, np.lexsort((-steps, smallest))


def _exteriors(rings: _Rings) -> Int64:
    """The exterior ring of each ring's part, int64 [R].

    Left of a hole's leftmost edge lies foreground of the same part, up to an edge of another of
    the part's rings that reaches farther left; from ring to ring this ends at the exterior.
    """
    edges = rings.edges
    vertical = np.flatnonzero(edges.direction % 2)
    row = (edges.y - (edges.direction == _UP))[vertical]
    edge = vertical[np.lexsort((edges.x[vertical], row, edges.mask[vertical]))]
    ring, x = rings.of_edge[edge], edges.x[edge]
    leftmost = np.full(rings.first.size, np.iinfo(np.int64).max)
    np.minimum.at(leftmost, ring, x)
    index = np.flatnonzero(x == leftmost[ring])
    _, chosen = np.unique(ring[index], return_index=True)
    index = index[chosen]
    # The leftmost edge of an exterior goes up: foreground is on its right.
    is_exterior = edges.direction[edge[index]] == _UP
    parent = np.where(is_exterior, np.arange(rings.first.size), ring[index - 1])
    for _ in range(parent.size.bit_length()):
        parent = parent[parent]
    return parent


def _corners(rings: _Rings) -> tuple[Float64, Int64]:
    """Float64 where a ring turns, float64 [P, 2], and the index of each ring's first."""
    direction = rings.edges.direction
    before = np.arange(direction.size) - 1
    before[rings.first] += run_lengths(rings.first, direction.size)
    turns = direction != direction[before]
    points = np.stack((rings.edges.x[turns], rings.edges.y[turns]), axis=1).astype(np.float64)
    return points, run_starts(rings.of_edge[turns])


def _chords(rings: _Rings, tolerance_px: float) -> tuple[Float64, Int64]:
    """Midpoints of edges, simplified: float64 [P, 2], and the index of each ring's first."""
    x = rings.edges.x + _STEP_X[rings.edges.direction] / 2
    y = rings.edges.y + _STEP_Y[rings.edges.direction] / 2
    keep = douglas_peucker(x, y, rings.first, tolerance_px)
    count = np.bincount(rings.of_edge[keep], minlength=rings.first.size)
    # A small ring could collapse to a line; simplify it less.
    if tolerance_px > SAME_PIXELS_PX and (count < 3).any():
        finer = douglas_peucker(x, y, rings.first, SAME_PIXELS_PX)
        keep = np.where((count < 3)[rings.of_edge], finer, keep)
    return np.stack((x[keep], y[keep]), axis=1), run_starts(rings.of_edge[keep])
