"""Bootstrap confidence intervals over photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def interval(
    statistic: Callable[[Sequence[int]], float],
    count: int,
    resamples: int,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic over draws of photos with replacement.

    Args:
        statistic: of a sequence of indices below `count`, with repetitions.
        count: of photos.
        resamples: number of draws.
        level: fraction of the draws within the interval.
        seed: of the draws; the same seed draws the same photos.

    Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, sec. 10.4
    (percentile method).
    """
    random = np.random.default_rng(seed)
    draws = [random.integers(0, count, count).tolist() for _ in range(resamples)]
    values = [value for value in map(statistic, draws) if np.isfinite(value)]
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
