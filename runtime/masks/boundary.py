"""The boundary of binary masks as rings of unit edges, directly from crops.

Foreground is 4-connected: two pixels that touch only at a corner belong to two parts, while such
holes are one.

The boundary consists of unit edges between a foreground and a background pixel, directed so that
the foreground lies to the right. Each edge ends where another begins, so linking them is a
permutation, computed with two sorts. Its cycles, the rings, are ordered by pointer doubling (1, 2,
4, ... edges ahead): log2(E) steps of NumPy instead of E of Python.

Module legend: E boundary edges, R rings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.arrays import Int64
from runtime.masks.paste import MaskCrop
from runtime.masks.simplify import run_lengths, run_starts

RIGHT, DOWN, LEFT, UP = range(4)
STEP_X = np.array([1, 0, -1, 0])
STEP_Y = np.array([0, 1, 0, -1])


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Boundary edges of all masks, int64 [E] each: mask, start and direction."""

    mask: Int64
    x: Int64
    y: Int64
    direction: Int64


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """Boundary edges ring after ring, those of a mask together.

    `first` is int64 [R], the first edge of each ring; `of_edge` int64 [E], the ring of each edge.
    """

    edges: Edges
    first: Int64
    of_edge: Int64

    def previous(self) -> Int64:
        """The edge before each edge of its ring, int64 [E]."""
        before = np.arange(self.of_edge.size) - 1
        before[self.first] += run_lengths(self.first, before.size)
        return before


def trace(crops: Sequence[MaskCrop]) -> Rings:
    """The boundary of all masks; without an edge if all are empty."""
    edges = _unit_edges(crops)
    if not edges.x.size:
        return Rings(edges, np.empty(0, np.int64), np.empty(0, np.int64))
    smallest, order = cycles(_following(edges))
    first = run_starts(smallest[order])
    of_edge = np.repeat(np.arange(first.size), run_lengths(first, order.size))
    in_order = Edges(edges.mask[order], edges.x[order], edges.y[order], edges.direction[order])
    return Rings(in_order, first, of_edge)


def left_neighbors(rings: Rings) -> tuple[Int64, Int64]:
    """Where the foreground left of a hole ends.

    Returns:
        The leftmost edge of each ring, and the next edge to the left of it in its pixel row, int64
        [R] each; for an exterior the leftmost edge twice. Between the two edges of a hole lies
        foreground of its part.
    """
    edges = rings.edges
    vertical = np.flatnonzero(edges.direction % 2)
    row = (edges.y - (edges.direction == UP))[vertical]
    edge = vertical[np.lexsort((edges.x[vertical], row, edges.mask[vertical]))]
    ring, x = rings.of_edge[edge], edges.x[edge]
    leftmost = np.full(rings.first.size, np.iinfo(np.int64).max)
    np.minimum.at(leftmost, ring, x)
    index = np.flatnonzero(x == leftmost[ring])
    _, chosen = np.unique(ring[index], return_index=True)
    index = index[chosen]
    # The leftmost edge of an exterior goes up: foreground is on its right.
    is_exterior = edges.direction[edge[index]] == UP
    return edge[index], np.where(is_exterior, edge[index], edge[index - 1])


def exteriors(rings: Rings) -> Int64:
    """The exterior ring of each ring's part, int64 [R].

    Left of a hole's leftmost edge lies foreground of the same part, up to an edge of another of
    the part's rings that reaches farther left; from ring to ring this ends at the exterior.
    """
    _, left = left_neighbors(rings)
    parent = rings.of_edge[left]
    for _ in range(parent.size.bit_length()):
        parent = parent[parent]
    return parent


def cycles(following: Int64) -> tuple[Int64, Int64]:
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


def _unit_edges(crops: Sequence[MaskCrop]) -> Edges:
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
        direction = np.concatenate((np.where(is_top, RIGHT, LEFT), np.where(is_left, UP, DOWN)))
        edges.append((np.full(x.size, mask), x, y, direction))
    return Edges(*map(np.concatenate, zip(*edges, strict=True)))


def _following(edges: Edges) -> Int64:
    """The edge after each edge, int64 [E]."""
    x, y, direction = edges.x, edges.y, edges.direction
    span = int(y.max()) + 2
    start = (edges.mask * (int(x.max()) + 2) + x) * span + y
    end = start + STEP_X[direction] * span + STEP_Y[direction]
    # Where two pixels touch at a corner, two edges arrive and two leave. A turn to the right stays
    # with the same pixel, so the edge that arrives with direction d continues with d + 1, which is
    # the order of these keys. Elsewhere one arrives and one leaves.
    following = np.empty(x.size, np.int64)
    following[np.argsort(end * 4 + direction)] = np.argsort(start * 4 + (direction - 1) % 4)
    return following
