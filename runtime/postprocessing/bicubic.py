"""Torch's bicubic resize of small square maps, cell by cell, with a bound on each cell's pixels.

A *cell* is the span between two neighboring samples of a map; all pixels in it are weighted sums
of the same 4 x 4 samples, so those samples bound them. A search for the largest pixel needs only
the few cells with a high bound.

Legend: J maps, S side of a map, C = S + 1 cells along it, P = S + 4 samples with the edge repeated
twice at each end, n pixels along an axis, N chosen cells, h x w the most pixels of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.arrays import Bool, Float32, Int64

_EDGE = 2
_TAPS = np.arange(4)
SHARPNESS = -0.75  # of torch's cubic kernel
# The outer two weights sum to -0.75 t (1 - t); all four sum to 1.
_MOST_OVERSHOOT = np.float32(-SHARPNESS / 4)
_HALF = np.float32(0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The samples that the pixels along one axis use.

    Attributes:
        cell: int64 [n], ascending; pixel i uses the padded samples cell[i] to cell[i] + 3.
        weights: float32 [n, 4], of those samples.
        first: int64 [C + 1]; the pixels of cell c are first[c] to first[c + 1] - 1.
    """

    cell: Int64
    weights: Float32
    first: Int64

    @property
    def counts(self) -> Int64:
        """Pixels in each cell, int64 [C]."""
        return np.diff(self.first)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Chosen cells, int64 [N] each: map, row of cells, column of cells."""

    plane: Int64
    row: Int64
    column: Int64

    def part(self, rows: slice) -> Cells:
        """Some of them."""
        return Cells(self.plane[rows], self.row[rows], self.column[rows])


def resize_axis(side: int, pixels: int) -> Axis:
    """The axis that resizes `side` samples to `pixels`, with half-pixel centers.

    Source: torch `interpolate(mode="bicubic", align_corners=False)`: float32 index arithmetic,
    A = -0.75, samples beyond the edge repeat it.
    """
    scale = np.float32(side) / np.float32(pixels)
    source = scale * (np.arange(pixels, dtype=np.float32) + _HALF) - _HALF
    below = np.floor(source)
    cell = below.astype(np.int64) + 1
    first = np.searchsorted(cell, np.arange(side + 2))
    return Axis(cell, _cubic(source - below), first)


def _cubic(t: Float32) -> Float32:
    """Weights of the samples at -1, 0, 1, 2 for a point at `t` in [0, 1): float32 [n, 4]."""
    a, u = np.float32(SHARPNESS), 1 - t
    inner = [1 + s * s * ((a + 2) * s - (a + 3)) for s in (t, u)]
    return np.stack([a * t * u * u, *inner, a * t * t * u], axis=1)


def padded(maps: Float32) -> Float32:
    """Repeat the edge samples: float32 [J, S, S] to [J, P, P]."""
    return np.pad(maps, ((0, 0), (_EDGE, _EDGE), (_EDGE, _EDGE)), mode="edge")


def cell_bounds(padded_maps: Float32, down: Axis, across: Axis) -> Float32:
    """Upper bound of the pixels of each cell, except for rounding: float32 [J, C, C].

    Minus infinity for cells without pixels. Rows of samples are bounded first, then groups of four
    rows: a pixel is a weighted sum, down, of values within the rows' bounds.

    Args:
        padded_maps: of `padded`.
        down: of the height.
        across: of the width.
    """
    highest, lowest = _span(padded_maps, padded_maps, axis=2)
    bounds, _ = _span(highest, lowest, axis=1)
    empty = (down.counts == 0)[:, None] | (across.counts == 0)
    return np.where(empty, np.float32(-np.inf), bounds)


def _span(highest: Float32, lowest: Float32, axis: int) -> tuple[Float32, Float32]:
    """Bounds of the cubic through four neighbors along an axis, from bounds of the neighbors."""
    count = highest.shape[axis] - 3

    def at(values: Float32, tap: int) -> Float32:
        return values[:, tap : tap + count] if axis == 1 else values[:, :, tap : tap + count]

    top = np.maximum(at(highest, 1), at(highest, 2))
    top = top + _MOST_OVERSHOOT * np.maximum(top - np.minimum(at(lowest, 0), at(lowest, 3)), 0)
    low = np.minimum(at(lowest, 1), at(lowest, 2))
    low = low - _MOST_OVERSHOOT * np.maximum(np.maximum(at(highest, 0), at(highest, 3)) - low, 0)
    return top, low


def cell_values(padded_maps: Float32, down: Axis, across: Axis, cells: Cells) -> Float32:
    """The pixels of chosen cells, float32 [N, h, w]; minus infinity beyond a cell's last one."""
    rows, is_row = _pixels(down, cells.row)
    columns, is_column = _pixels(across, cells.column)
    samples = padded_maps[
        cells.plane[:, None, None],
        cells.row[:, None, None] + _TAPS[:, None],
        cells.column[:, None, None] + _TAPS,
    ]
    values = down.weights[rows] @ (samples @ across.weights[columns].transpose(0, 2, 1))
    return np.where(is_row[:, :, None] & is_column[:, None], values, np.float32(-np.inf))


def _pixels(axis: Axis, cell: Int64) -> tuple[Int64, Bool]:
    """Pixels of each cell, int64 [N, most], and which of them exist."""
    pixels = axis.first[cell][:, None] + np.arange(axis.counts.max())
    return np.minimum(pixels, axis.cell.size - 1), pixels < axis.first[cell + 1][:, None]


def pixel_value(padded_map: Float32, down: Axis, across: Axis, row: int, column: int) -> float:
    """One pixel of the resized map of float32 [P, P]."""
    y, x = down.cell[row], across.cell[column]
    samples = padded_map[y : y + _TAPS.size, x : x + _TAPS.size]
    return float(down.weights[row] @ samples @ across.weights[column])
