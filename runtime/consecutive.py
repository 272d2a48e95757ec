"""Runs of consecutive elements in one array: where each begins, and how long it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def starts(values: Ints) -> Ints:
    """Where runs of equal values begin, int64 [R]; there must be a value."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.concatenate((np.zeros(1, np.int64), changes))


def lengths(first: Ints, total: int) -> Ints:
    """Lengths of the runs of `total` elements, by where they begin; int64 [R]."""
    return np.diff(first, append=total)
