"""Douglas-Peucker simplification of many closed rings at once.

Module legend: R rings, P points of all rings, Q points inside the pieces that may still be split.

Source: Douglas and Peucker, 1973, with the distance to the chord's segment.
"""

from __future__ import annotations

import numpy as np

from model.arrays import Bool, Float64, Int64


def run_starts(values: Int64) -> Int64:
    """Where runs of equal values begin, int64 [R]; there must be a value."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.concatenate((np.zeros(1, np.int64), changes))


def run_lengths(first: Int64, total: int) -> Int64:
    """Lengths of the runs of `total` elements, from where they begin, int64 [R]."""
    return np.diff(first, append=total)


def douglas_peucker(x: Float64, y: Float64, first: Int64, tolerance: float) -> Bool:
    """Which points to keep.

    A ring is split at its first point and at the point farthest from it. Then each piece is split
    at the point farthest from its chord while that distance exceeds the tolerance; all pieces of
    all rings take a step together.

    Args:
        x: float64 [P], ring after ring, without a ring's first point repeated.
        y: float64 [P].
        first: int64 [R], where each ring begins; every ring has a point.
        tolerance: In the unit of x and y.

    Returns:
        bool [P]. Each removed point is at most the tolerance from the chord that replaces it.
    """
    size = run_lengths(first, x.size)
    start = first + np.arange(first.size)
    # Repeat the first point at each ring's end, so that every piece has two ends.
    closed = np.insert(np.arange(x.size), first + size, first)
    x, y = x[closed], y[closed]
    keep = np.zeros(closed.size, np.bool_)
    keep[start] = keep[start + size] = True
    away_x, away_y = x - np.repeat(x[start], size + 1), y - np.repeat(y[start], size + 1)
    keep[_farthest(away_x**2 + away_y**2, start, size + 1)] = True
    inner = np.flatnonzero(~keep)
    while inner.size:
        ends = np.flatnonzero(keep)
        piece = np.searchsorted(ends, inner) - 1
        begin = run_starts(piece)
        count = run_lengths(begin, inner.size)
        low, high = ends[piece[begin]], ends[piece[begin] + 1]
        distance2 = _distance2(x, y, inner, low, high, count)
        farthest = _farthest(distance2, begin, count)
        is_split = distance2[farthest] > tolerance**2
        keep[inner[farthest[is_split]]] = True
        is_open = np.repeat(is_split, count)
        is_open[farthest] = False
        inner = inner[is_open]
    # Drop the repeated first points.
    return np.delete(keep, start + size)


def _farthest(distance: Float64, begin: Int64, count: Int64) -> Int64:
    """Index of the first largest distance of each run."""
    largest = np.maximum.reduceat(distance, begin)
    indices = np.flatnonzero(distance == np.repeat(largest, count))
    return indices[np.searchsorted(indices, begin)]


def _distance2(
    x: Float64, y: Float64, inner: Int64, low: Int64, high: Int64, count: Int64
) -> Float64:
    """Squared distance of each inner point from its piece's chord, [Q]."""
    along_x, along_y = x[high] - x[low], y[high] - y[low]
    length2 = along_x**2 + along_y**2
    length2[length2 == 0] = 1.0
    off_x = x[inner] - np.repeat(x[low], count)
    off_y = y[inner] - np.repeat(y[low], count)
    along_x, along_y = np.repeat(along_x, count), np.repeat(along_y, count)
    fraction = (off_x * along_x + off_y * along_y) / np.repeat(length2, count)
    np.clip(fraction, 0.0, 1.0, out=fraction)
    off_x -= fraction * along_x
    off_y -= fraction * along_y
    distance2: Float64 = off_x**2 + off_y**2
    return distance2
