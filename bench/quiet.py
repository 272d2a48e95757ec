"""Timing on a machine that others use too: wait until they rest, and say what they took."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# A pause also lets the thread pools of the call before fall asleep.
PAUSE_S = 0.3
PATIENCE_S = 120.0
TRIES = 4
# Share of one core.
QUIET = 0.05

_STAT = Path("/proc/stat")
_IDLE_FIELDS = (3, 4)  # idle and iowait
_CPU_FIELDS = 8  # the rest is guests' time, which is in the others already


@dataclass(frozen=True, slots=True)
class Sample:
    """One call: wall seconds, and the share of a core that other processes took meanwhile."""

    seconds: float
    others: float


def sample(call: Callable[[], object]) -> Sample:
    """Time a call in a quiet moment; the least disturbed of a few tries.

    Where the system does not tell what others take (no `/proc/stat`), the first try counts.
    """
    taken: list[Sample] = []
    for _ in range(TRIES):
        _wait_until_quiet()
        taken.append(_once(call))
        if taken[-1].others <= QUIET:
            break
    return min(taken, key=lambda s: s.others)


def _once(call: Callable[[], object]) -> Sample:
    before = _others_s()
    started = time.perf_counter()
    call()
    seconds = time.perf_counter() - started
    return Sample(seconds, max(_others_s() - before, 0.0) / seconds)


def _wait_until_quiet() -> None:
    end = time.perf_counter() + PATIENCE_S
    while _once(lambda: time.sleep(PAUSE_S)).others > QUIET and time.perf_counter() < end:
        pass


def _others_s() -> float:
    """Processor seconds of everything but this process so far; 0 where that is unknown."""
    if not _STAT.exists():
        return 0.0
    fields = [int(f) for f in _STAT.read_text("ascii").splitlines()[0].split()[1:]]
    ticks = sum(fields[:_CPU_FIELDS]) - sum(fields[i] for i in _IDLE_FIELDS)
    own = os.times()
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system
