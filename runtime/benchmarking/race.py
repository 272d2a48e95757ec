"""The passes of a benchmark: a look at every photo, then timed calls in turn, then streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from model.errors import ImageError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.benchmarking.contestant import Contestant
from runtime.benchmarking.samples import Timing
from runtime.benchmarking.worker import Seen, Setting
from runtime.cli.console import complain

# Thread pools spin for a while after a call, on the cores that the next contestant needs.
_PAUSE_S = 0.05
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: every photo `repeats` times, `batch` photos a call."""

    repeats: int
    batch: int

    def steps(self, photos: int, contestants: int) -> int:
        """Photos that go through a network, all passes and contestants together."""
        return photos * contestants * (self.repeats + 2)


@dataclass(frozen=True, slots=True, eq=False)
class Lap:
    """What one artifact did.

    Attributes:
        artifact: spec and manifest.
        size_bytes: of the file.
        seen: its result on every photo, from one call each.
        timings: of all timed calls.
        streamed_per_s: photos a second with all stages at work at the same time.
        peak_bytes: most resident memory of its process until the timed calls were over.
        stream_peak_bytes: the same when the stream was, too.
    """

    artifact: Artifact
    size_bytes: int
    seen: Sequence[Seen]
    timings: Sequence[Timing]
    streamed_per_s: float
    peak_bytes: int | None
    stream_peak_bytes: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Race:
    """Laps in the order of the settings, and the photos that all of them could use."""

    photos: Sequence[Path]
    left_out: int
    laps: Sequence[Lap]


def race(
    settings: Sequence[Setting],
    photos: Sequence[Path],
    plan: Plan,
    advance: Advance,
    admit: Callable[[Sequence[Artifact]], None] = lambda artifacts: None,
) -> Race:
    """Open all artifacts, a process each, and measure them on the same photos.

    Args:
        settings: one per artifact.
        photos: one or more files; one that an artifact cannot use is reported and left out for
            all.
        plan: how much.
        advance: told how many photos went through.
        admit: raises when these artifacts cannot be compared as asked.

    Raises:
        ArtifactError: a file does not open, or its process died.
        UsageError: no photo can be used, or an artifact cannot run the batch.
    """
    with ExitStack() as stack:
        # One after the other: two that compile at once would disturb nothing but memory.
        field = [stack.enter_context(Contestant(setting)) for setting in settings]
        admit([one.artifact for one in field])
        seen = _look(field, photos, advance)
        usable = list(seen)
        advance((len(photos) - len(usable)) * len(field) * (plan.repeats + 1))
        if not usable:
            raise UsageError(
                f"--images: none of {len(photos)} photos could be used; the lines before say why"
            )
        timings = _timed(field, usable, plan, advance)
        peaks = [one.peak_memory_bytes() for one in field]
        rates = [_streamed(one, usable, plan, advance) for one in field]
        laps = [
            Lap(
                one.artifact,
                one.path.stat().st_size,
                [seen[photo][place] for photo in usable],
                timings[place],
                rates[place],
                peaks[place],
                one.peak_memory_bytes(),
            )
            for place, one in enumerate(field)
        ]
    return Race(usable, len(photos) - len(usable), laps)


def _look(
    field: Sequence[Contestant], photos: Sequence[Path], advance: Advance
) -> Mapping[Path, list[Seen]]:
    """Results on every photo that all can use; untimed, so that it warms everything up too."""
    seen: dict[Path, list[Seen]] = {}
    for photo in photos:
        try:
            seen[photo] = [one.see(photo) for one in field]
        except ImageError as error:
            complain(error if str(photo) in str(error) else f"{photo}: {error}")
        advance(len(field))
    return seen


def _timed(
    field: Sequence[Contestant], photos: Sequence[Path], plan: Plan, advance: Advance
) -> list[list[Timing]]:
    """All calls of each contestant; they take turns, so that all see the same machine."""
    timings: list[list[Timing]] = [[] for _ in field]
    for _ in range(plan.repeats):
        for start in range(0, len(photos), plan.batch):
            chunk = photos[start : start + plan.batch]
            for one, found in zip(field, timings, strict=True):
                if len(field) > 1:
                    time.sleep(_PAUSE_S)
                found.append(one.time(chunk))
                advance(len(chunk))
    return timings


def _streamed(one: Contestant, photos: Sequence[Path], plan: Plan, advance: Advance) -> float:
    seconds = one.stream(photos, plan.batch)
    advance(len(photos))
    return len(photos) / seconds
