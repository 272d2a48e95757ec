"""How far a number over photos hangs on which photos they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def interval(
    statistic: Callable[[Sequence[int]], float],
    count: int,
    resamples: int,
    share: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The middle share of a statistic over draws with replacement.

    Args:
        statistic: of a sequence of places, each below `count`, in which some come twice.
        count: of photos.
        resamples: draws.
        share: of the draws that lie within the answer.
        seed: of the draws; the same seed draws the same photos.

    Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, sec. 10.4
    (percentile method).
    """
    random = np.random.default_rng(seed)
    draws = [random.integers(0, count, count).tolist() for _ in range(resamples)]
    found = [value for value in map(statistic, draws) if np.isfinite(value)]
    if not found:
        return float("nan"), float("nan")
    low, high = np.quantile(found, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
