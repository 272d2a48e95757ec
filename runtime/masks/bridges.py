"""The shortest ways between the pieces of a mask.

A way goes from pixel to pixel in eight directions, so it has as many steps as the larger of its
width and height. Ways that connect all pieces with the fewest steps are a minimum spanning tree of
the pieces. Not all pairs of pieces are needed for it: where the areas of the pixels that are
nearest to two pieces meet, there is a way between the two, and the tree is among these ways
(Mehlhorn, 1988). Two sweeps over the rows of pixels find the nearest pieces, so the time grows with
the area, not with the pairs of pixels (Rosenfeld and Pfaltz, 1966).

Module legend: E pixels at the boundary of pieces, H x W the area searched, J ways.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.arrays import Bool, Int64

_BAND_PIXELS = 1 << 20
_SAMPLES = 256
# The neighbors of a pixel to the right and below, as slices of the pixels and of the neighbors.
_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
_NEIGHBORS = (
    ((_ALL, _FIRST), (_ALL, _LAST)),
    ((_FIRST, _ALL), (_LAST, _ALL)),
    ((_FIRST, _FIRST), (_LAST, _LAST)),
    ((_FIRST, _LAST), (_LAST, _FIRST)),
)
# Steps to the nearest pixel of a piece, shifted by some bits, plus its index: int32 if that fits.
_Nearest = NDArray[np.signedinteger]


def shortest_ways(x: Int64, y: Int64, piece: Int64) -> Int64:
    """The shortest ways between pieces, shortest first; a minimum spanning tree is among them.

    Args:
        x: int64 [E]; pixels may be repeated.
        y: int64 [E].
        piece: int64 [E], the number of each pixel's piece, from 0; at least two pieces.

    Returns:
        The indices of both ends, int64 [J, 2].
    """
    near = np.flatnonzero(_can_be_ends(x, y, piece))
    x, y, piece = x[near] - x[near].min(), y[near] - y[near].min(), piece[near]
    if y.max() > x.max():  # the shorter loop
        x, y = y, x
    bits = x.size.bit_length()
    nearest = _nearest(x, y, bits)
    meetings = []
    rows = max(1, _BAND_PIXELS // nearest.shape[1])
    for start in range(0, len(nearest), rows):
        meetings += _meetings(nearest[start : start + rows + 1], piece, bits)
    steps, one, other = np.concatenate(meetings, axis=1)
    ends = np.stack((one, other), axis=1)[np.argsort(steps, kind="stable")]
    pieces = np.sort(piece[ends], axis=1)
    _, shortest = np.unique(pieces @ (piece.max() + 1, 1), return_index=True)
    chosen: Int64 = near[ends[np.sort(shortest)]]
    return chosen


def _can_be_ends(x: Int64, y: Int64, piece: Int64) -> Bool:
    """Pixels in the box of all pieces but the largest, and near that box.

    All other pieces could be joined to the largest, so the tree has no longer way than the longest
    of these, of which single pixels give a bound.
    """
    is_largest = piece == np.bincount(piece).argmax()
    largest, others = np.flatnonzero(is_largest), np.flatnonzero(~is_largest)
    _, first = np.unique(piece[others], return_index=True)
    some, samples = others[first, None], largest[:: -(-largest.size // _SAMPLES)]
    away = np.maximum(np.abs(x[some] - x[samples]), np.abs(y[some] - y[samples]))
    most = away.min(axis=1).max()
    is_near = np.ones(x.size, np.bool_)
    for values in (x, y):
        is_near &= values >= values[others].min() - most
        is_near &= values <= values[others].max() + most
    return is_near


def _nearest(x: Int64, y: Int64, bits: int) -> _Nearest:
    """Of each pixel of the box, [H, W]."""
    width = int(x.max()) + 1  # no distance is larger
    fits = (2 * width + 1) << bits < 1 << 31
    shape = int(y.max()) + 1, width
    nearest = np.full(shape, width << bits, np.int32 if fits else np.int64)
    nearest[y, x] = np.arange(x.size)
    step = nearest.dtype.type(1 << bits)
    along = np.arange(width, dtype=nearest.dtype) * step
    _sweep(nearest, step, along, slice(None))
    _sweep(nearest[::-1], step, along[::-1], slice(None, None, -1))
    return nearest


def _sweep(nearest: _Nearest, step: np.signedinteger, along: _Nearest, direction: slice) -> None:
    """Carry the nearest pixels from row to row, and along each in a direction, in place."""
    for index, row in enumerate(nearest):
        if index:
            before = nearest[index - 1] + step
            np.minimum(row, before, out=row)
            np.minimum(row[1:], before[:-1], out=row[1:])
            np.minimum(row[:-1], before[1:], out=row[:-1])
        row -= along
        np.minimum.accumulate(row[direction], out=row[direction])
        row += along


def _meetings(nearest: _Nearest, piece: Int64, bits: int) -> list[Int64]:
    """Where neighboring pixels are nearest to different pieces: steps and both ends, [3, J]."""
    low = (1 << bits) - 1
    owner = piece.astype(np.int32).take(nearest & low)
    result = []
    for pixels, neighbors in _NEIGHBORS:
        differ = owner[pixels] != owner[neighbors]
        # Faster than the indices of an array in two dimensions.
        meeting = np.divmod(np.flatnonzero(differ), differ.shape[1])
        one, other = nearest[pixels][meeting], nearest[neighbors][meeting]
        steps = (one >> bits) + (other >> bits)
        result.append(np.stack((steps, one & low, other & low)).astype(np.int64))
    return result
