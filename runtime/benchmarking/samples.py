"""Times of one artifact: percentiles per stage, and how fast photos went through."""

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
        total_s: from outside, what lies between the stages included.
        photos: of the call.
    """

    seconds: dict[str, float]
    total_s: float
    photos: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds per photo over all calls; None where there were too few calls to know."""

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    most_ms: float


def calls_needed(percent: int) -> int:
    """How many calls a percentile needs, so that one may lie above it: p90 10, p99 100."""
    return 1 if percent == 50 else math.ceil(100 / (100 - percent))


def spread(seconds: Sequence[float]) -> Spread:
    """Percentiles of one call or more, linear between the ranks.

    Args:
        seconds: per photo.
    """
    ms = 1e3 * np.asarray(seconds)
    p50, p90, p99 = (
        float(np.percentile(ms, percent)) if len(ms) >= calls_needed(percent) else None
        for percent in PERCENTS
    )
    return Spread(p50, p90, p99, float(ms.max()))


def spreads(timings: Sequence[Timing]) -> dict[str, Spread]:
    """Of every stage, and of the whole call."""
    found = {
        stage: spread([timing.seconds[stage] / timing.photos for timing in timings])
        for stage in STAGES
    }
    return {**found, TOTAL: spread([timing.total_s / timing.photos for timing in timings])}


def images_per_s(timings: Sequence[Timing]) -> float:
    """Photos through one call after the other."""
    return sum(timing.photos for timing in timings) / sum(timing.total_s for timing in timings)
