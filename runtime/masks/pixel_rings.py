"""Closed walks over a mask's own pixels, for readers that paint the outline of a polygon.

Such a reader truncates or rounds each vertex to a pixel, paints the pixels under the outline, and
fills the inside by the even-odd rule (OpenCV's `fillPoly`, Pillow's `ImageDraw.polygon`). A walk
over the mask's outermost pixels gives it exactly the mask. The walk visits, for each edge of the
boundary, the foreground pixel beside it, so it has the corners of the outline, half a pixel inside.

A walk of one part takes steps along x and y only. A reader that adds points between the vertices
before it truncates them, as Ultralytics' training does, then stays on the same pixels; on a
diagonal, the rounding of x and y decides which corner it cuts.

Walks are joined by going from an edge of one to an edge of the other and back along the same
pixels, which the even-odd rule cancels:

* a hole to the nearest ring on its left, over pixels of the mask: nothing is added;
* parts that touch at a corner, by one diagonal step: nothing is added;
* parts that do not touch, by the shortest ways that connect them all (`runtime.masks.bridges`): a
  reader paints the pixels in between.

Module legend: E boundary edges, J joins, V visited pixels of all walks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.arrays import Int64
from runtime.masks.boundary import STEP_X, STEP_Y, Rings, cycles, exteriors, left_neighbors, trace
from runtime.masks.bridges import shortest_ways
from runtime.masks.paste import MaskCrop
from runtime.masks.simplify import run_lengths, run_starts

# A vertex this far past its pixel's integer coordinates, in x and y, is in that pixel for a reader
# that truncates and for one that rounds.
IN_PIXEL_PX = 0.25

# The foreground pixel on the right of an edge, from the edge's start, by its direction.
_PIXEL_X = np.array([0, -1, -1, 0])
_PIXEL_Y = np.array([0, 0, -1, -1])
# Edges joined in pairs, int64 [J, 2].
_Joins = Int64


@dataclass(frozen=True, slots=True, eq=False)
class MaskRing:
    """One ring for a whole mask.

    Attributes:
        pixels: int64 [N, 2], as a ring of `part_rings`; [0, 2] if the mask is empty.
        has_bridges: Whether it goes over pixels that are not of the mask.
    """

    pixels: Int64
    has_bridges: bool

    @property
    def has_diagonal(self) -> bool:
        """Whether a step changes both x and y."""
        steps = self.pixels - np.roll(self.pixels, 1, axis=0)
        return bool((steps != 0).all(axis=1).any())


def part_rings(crops: Sequence[MaskCrop]) -> list[list[Int64]]:
    """One ring per 4-connected part of each mask, with its holes.

    Returns:
        Per mask, int64 [N, 2] for each part: x and y of pixels, at least three, without the first
        repeated at the end.
    """
    rings = trace(crops)
    if not rings.first.size:
        return [[] for _ in crops]
    return _walks(rings, _hole_joins(rings), len(crops))


def mask_rings(crops: Sequence[MaskCrop]) -> list[MaskRing]:
    """One ring per mask, with all its parts and holes."""
    none = MaskRing(np.empty((0, 2), np.int64), has_bridges=False)
    rings = trace(crops)
    if not rings.first.size:
        return [none] * len(crops)
    part_joins, bridged = _part_joins(rings)
    joins = np.concatenate((_hole_joins(rings), part_joins))
    return [
        MaskRing(walks[0], mask in bridged) if walks else none
        for mask, walks in enumerate(_walks(rings, joins, len(crops)))
    ]


def _pixels(rings: Rings) -> tuple[Int64, Int64]:
    """X and y of the foreground pixel beside each edge, int64 [E] each."""
    edges = rings.edges
    return edges.x + _PIXEL_X[edges.direction], edges.y + _PIXEL_Y[edges.direction]


def _hole_joins(rings: Rings) -> _Joins:
    leftmost, left = left_neighbors(rings)
    is_hole = left != leftmost
    return np.stack((left[is_hole], leftmost[is_hole]), axis=1)


def _part_joins(rings: Rings) -> tuple[_Joins, set[int]]:
    """Joins that connect the parts of each mask; the masks whose parts do not all touch."""
    part = exteriors(rings)[rings.of_edge]
    joins, roots = _tree(part, _touching(rings))
    piece = roots[part]
    x, y = _pixels(rings)
    bridged = set()
    # The edges of a mask are together.
    first = run_starts(rings.edges.mask)
    for start, size in zip(first, run_lengths(first, part.size), strict=True):
        of_mask = slice(start, start + size)
        if (piece[of_mask] != piece[start]).any():
            bridged.add(int(rings.edges.mask[start]))
            _, number = np.unique(piece[of_mask], return_inverse=True)
            ways = shortest_ways(x[of_mask], y[of_mask], number)
            joins += [[start + a, start + b] for a, b in _tree(number, ways)[0]]
    return np.array(joins, np.int64).reshape(-1, 2), bridged


def _touching(rings: Rings) -> _Joins:
    """Pairs of edges that start at the same corner, of two pixels that touch only there."""
    edges = rings.edges
    order = np.lexsort((edges.y, edges.x, edges.mask))
    first, second = order[:-1], order[1:]
    is_same = (edges.x[first] == edges.x[second]) & (edges.y[first] == edges.y[second])
    is_same &= edges.mask[first] == edges.mask[second]
    return np.stack((first[is_same], second[is_same]), axis=1)


def _tree(part: Int64, pairs: _Joins) -> tuple[list[list[int]], Int64]:
    """The pairs that connect parts without a cycle, and each part's representative."""
    root = list(range(int(part.max()) + 1))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = index = root[root[index]]
        return index

    joins = []
    for (a, b), parts in zip(pairs.tolist(), part[pairs].tolist(), strict=True):
        one, other = map(find, parts)
        if one != other:
            root[other] = one
            joins.append([a, b])
    return joins, np.array([find(index) for index in range(len(root))])


def _walks(rings: Rings, joins: _Joins, masks: int) -> list[list[Int64]]:
    """The walks of all rings, with joined rings as one."""
    result: list[list[Int64]] = [[] for _ in range(masks)]
    smallest, order = cycles(_joined(rings, joins))
    x, y = (points[order].reshape(-1) for points in _visited(rings, joins))
    walk = np.repeat(smallest[order], 2)
    for start, ring in _corners(x, y, walk):
        result[int(rings.edges.mask[start])].append(ring)
    return result


def _joined(rings: Rings, joins: _Joins) -> Int64:
    """The successor of each edge, and of two copies of edges per join: int64 [E + 2 J].

    A join of a and b goes from a to a copy of b, around the ring of b to b itself, to a copy of a,
    and on as from a.
    """
    edges = rings.of_edge.size
    following = np.empty(edges + 2 * len(joins), np.int64)
    following[rings.previous()] = np.arange(edges)
    for index, (a, b) in enumerate(joins.tolist()):
        of_b, of_a = edges + 2 * index, edges + 2 * index + 1
        following[of_b], following[of_a] = following[b], following[a]
        following[a], following[b] = of_b, of_a
    return following


def _visited(rings: Rings, joins: _Joins) -> tuple[Int64, Int64]:
    """X and y of the pixels on the way to each edge and at it, int64 [E + 2 J, 2] each.

    Where a ring turns left, its next pixel is diagonal to the last: the walk goes over the pixel
    that both share, which is foreground. The copies of a join go a diagonal first and then
    straight.
    """
    x, y = _pixels(rings)
    direction = rings.edges.direction
    is_left = (direction[rings.previous()] - direction) % 4 == 1
    between_x = np.where(is_left, x - STEP_X[direction], x)
    between_y = np.where(is_left, y - STEP_Y[direction], y)
    a, b = joins.T
    across, down = x[b] - x[a], y[b] - y[a]
    diagonal = np.minimum(np.abs(across), np.abs(down))
    knee_x, knee_y = x[a] + diagonal * np.sign(across), y[a] + diagonal * np.sign(down)
    copies = np.stack((b, a), axis=1).ravel()
    return (
        np.stack((np.append(between_x, knee_x.repeat(2)), np.append(x, x[copies])), axis=1),
        np.stack((np.append(between_y, knee_y.repeat(2)), np.append(y, y[copies])), axis=1),
    )


def _corners(x: Int64, y: Int64, walk: Int64) -> list[tuple[int, Int64]]:
    """The vertices of each walk: its number, and int64 [N, 2] with N at least 3.

    Args:
        x: int64 [V], walk after walk; neighbors differ by steps in one of eight directions.
        y: int64 [V].
        walk: int64 [V], the number of the walk.
    """
    x, y, walk = _without_repeats(x, y, walk)
    first = run_starts(walk)
    before = _before(first, walk.size)
    to_x, to_y = np.sign(x - x[before]), np.sign(y - y[before])
    after = np.empty_like(before)
    after[before] = np.arange(walk.size)
    turns = (to_x != to_x[after]) | (to_y != to_y[after])
    # Points added on a diagonal may pass beside its pixels, so each is a vertex.
    turns |= (to_x != 0) & (to_y != 0)
    turns[first] |= run_lengths(first, walk.size) == 1
    points = np.stack((x[turns], y[turns]), axis=1)
    split = np.split(points, run_starts(walk[turns])[1:])
    return [
        (number, np.pad(ring, ((0, max(0, 3 - len(ring))), (0, 0)), "edge"))
        for number, ring in zip(walk[first].tolist(), split, strict=True)
    ]


def _without_repeats(x: Int64, y: Int64, walk: Int64) -> tuple[Int64, Int64, Int64]:
    """The walks without pixels equal to the one before; one pixel of a walk stays."""
    first = run_starts(walk)
    before = _before(first, walk.size)
    keep = (x != x[before]) | (y != y[before])
    keep[first] |= ~np.logical_or.reduceat(keep, first)
    return x[keep], y[keep], walk[keep]


def _before(first: Int64, total: int) -> Int64:
    """The index before each index, within closed runs."""
    before = np.arange(total) - 1
    before[first] += run_lengths(first, total)
    return before
