"""Times of one artifact: percentiles per stage, and the throughput of calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STAGES = ("decode", "preprocess", "network", "results")
TOTAL = "total"
PERCENTS = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Timing:
    """One call.

    Attributes:
        seconds: of each stage, for all photos of the call; run lengths belong to "results".
        total_s: of the whole call, including time between the stages.
        photos: number of photos of the call.
    """

    seconds: dict[str, float]
    total_s: float
    photos: int


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds per photo over all calls; None for a percentile that needs more calls."""

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    most_ms: float


def calls_needed(percent: int) -> int:
    """Calls that a percentile needs, so that one may lie above it: p90 10, p99 100."""
    return 1 if percent == 50 else math.ceil(100 / (100 - percent))


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Percentiles of one or more calls, linear between the ranks.

    Args:
        seconds: per photo.
    """
    ms = 1e3 * np.asarray(seconds)
    p50, p90, p99 = (
        float(np.percentile(ms, percent)) if len(ms) >= calls_needed(percent) else None
        for percent in PERCENTS
    )
    return Percentiles(p50, p90, p99, float(ms.max()))


def stage_percentiles(timings: Sequence[Timing]) -> dict[str, Percentiles]:
    """Percentiles of every stage and of the whole call."""
    stages = {
        stage: percentiles([timing.seconds[stage] / timing.photos for timing in timings])
        for stage in STAGES
    }
    return {**stages, TOTAL: percentiles([timing.total_s / timing.photos for timing in timings])}


def images_per_s(timings: Sequence[Timing]) -> float:
    """Photos per second of calls one after the other."""
    return sum(timing.photos for timing in timings) / sum(timing.total_s for timing in timings)
