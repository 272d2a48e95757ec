"""The passes of a benchmark: detect on every photo, timed calls in turn, then streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from model.errors import ImageError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.benchmarking.artifact_process import ArtifactProcess
from runtime.benchmarking.timings import Timing
from runtime.benchmarking.worker import OpenOptions, PhotoResult
from runtime.cli.console import print_error

# Thread pools spin for a while after a call, on the cores that the next process needs.
_PAUSE_S = 0.05
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: every photo `repeats` times, `batch` photos per call."""

    repeats: int
    batch: int

    def steps(self, photos: int, artifacts: int) -> int:
        """Photos that run through a network, over all passes and artifacts."""
        return photos * artifacts * (self.repeats + 2)


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What was measured of one artifact.

    Attributes:
        artifact: spec and manifest.
        size_bytes: of the file.
        results: on every photo, from one call each.
        timings: of all timed calls.
        streamed_per_s: photos per second with all stages at work at the same time.
        peak_bytes: peak resident memory of its process up to the end of the timed calls.
        stream_peak_bytes: the same up to the end of the stream.
    """

    artifact: Artifact
    size_bytes: int
    results: Sequence[PhotoResult]
    timings: Sequence[Timing]
    streamed_per_s: float
    peak_bytes: int | None
    stream_peak_bytes: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """One per artifact, in the order of the options, on the photos that all could use."""

    photos: Sequence[Path]
    left_out: int
    artifacts: Sequence[Measurement]


def measure(
    options: Sequence[OpenOptions],
    photos: Sequence[Path],
    plan: Plan,
    advance: Advance,
    check_artifacts: Callable[[Sequence[Artifact]], None] = lambda artifacts: None,
) -> Measurements:
    """Open all artifacts, a process each, and measure them on the same photos.

    Args:
        options: one per artifact.
        photos: one or more files; one that an artifact cannot use is reported and left out for
            all.
        plan: how much is measured.
        advance: called with the number of photos done.
        check_artifacts: raises an error for artifacts that cannot be compared.

    Raises:
        ArtifactError: a file does not open, or its process died.
        UsageError: no photo can be used, or an artifact cannot run the batch.
    """
    with ExitStack() as stack:
        # One after the other: opening compiles, which takes all cores and much memory.
        processes = [stack.enter_context(ArtifactProcess(one)) for one in options]
        check_artifacts([process.artifact for process in processes])
        results = _detect(processes, photos, advance)
        usable = list(results)
        advance((len(photos) - len(usable)) * len(processes) * (plan.repeats + 1))
        if not usable:
            raise UsageError(
                f"--images: none of {len(photos)} photos could be used; see the errors above"
            )
        timings = _time_in_turn(processes, usable, plan, advance)
        peaks = [process.peak_memory_bytes() for process in processes]
        rates = [_stream(process, usable, plan, advance) for process in processes]
        artifacts = [
            Measurement(
                process.artifact,
                process.path.stat().st_size,
                [results[photo][index] for photo in usable],
                timings[index],
                rates[index],
                peaks[index],
                process.peak_memory_bytes(),
            )
            for index, process in enumerate(processes)
        ]
    return Measurements(usable, len(photos) - len(usable), artifacts)


def _detect(
    processes: Sequence[ArtifactProcess], photos: Sequence[Path], advance: Advance
) -> Mapping[Path, list[PhotoResult]]:
    """Results on every photo that all can use; untimed, and a warm-up for the timed passes."""
    results: dict[Path, list[PhotoResult]] = {}
    for photo in photos:
        try:
            results[photo] = [process.detect(photo) for process in processes]
        except ImageError as error:
            print_error(error if str(photo) in str(error) else f"{photo}: {error}")
        advance(len(processes))
    return results


def _time_in_turn(
    processes: Sequence[ArtifactProcess], photos: Sequence[Path], plan: Plan, advance: Advance
) -> list[list[Timing]]:
    """All calls of each process, in turn, so that all run under the same conditions."""
    timings: list[list[Timing]] = [[] for _ in processes]
    for _ in range(plan.repeats):
        for start in range(0, len(photos), plan.batch):
            chunk = photos[start : start + plan.batch]
            for process, of_process in zip(processes, timings, strict=True):
                if len(processes) > 1:
                    time.sleep(_PAUSE_S)
                of_process.append(process.time(chunk))
                advance(len(chunk))
    return timings


def _stream(
    process: ArtifactProcess, photos: Sequence[Path], plan: Plan, advance: Advance
) -> float:
    seconds = process.stream(photos, plan.batch)
    advance(len(photos))
    return len(photos) / seconds
