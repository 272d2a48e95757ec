"""The results of a benchmark as a table, as a JSON document and as a bar chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.benchmarking.passes import Measurement
from runtime.benchmarking.quality import Quality
from runtime.benchmarking.timings import (
    PERCENTS,
    STAGES,
    TOTAL,
    Percentiles,
    calls_needed,
    images_per_s,
    stage_percentiles,
)
from runtime.cli.console import aligned, plural
from runtime.cli.figure import BLUE, GREEN, LIGHT_BLUE, ORANGE, new_figure, save_figure

SCHEMA_VERSION = 1
_NONE = "–"
_COLORS = {"decode": LIGHT_BLUE, "preprocess": GREEN, "network": BLUE, "results": ORANGE}
Against = Literal["labels", "first"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact of the report; `quality` is None where nothing was compared."""

    letter: str
    measurement: Measurement
    stages: dict[str, Percentiles]
    quality: Quality | None

    @property
    def detections(self) -> int:
        """Number on all photos."""
        return sum(len(result.detections) for result in self.measurement.results)

    @property
    def uncertified(self) -> int:
        """Number of photos whose result the graph could not certify."""
        return sum(not result.detections.exact for result in self.measurement.results)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the table: a number per artifact, its format, and how it is compared."""

    title: str
    value: Callable[[Entry], float | None]
    text: Callable[[float], str]
    compared: Literal["ratio", "difference", ""] = "ratio"


def entries(
    measurements: Sequence[Measurement], qualities: Sequence[Quality | None]
) -> list[Entry]:
    """Letters for the artifacts, and percentiles of their times."""
    return [
        Entry(_letter(index), measurement, stage_percentiles(measurement.timings), quality)
        for index, (measurement, quality) in enumerate(zip(measurements, qualities, strict=True))
    ]


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"#{index + 1}"


def table(artifacts: Sequence[Entry], against: Against | None) -> str:
    """Aligned text: a line per quantity, a column per artifact, then its ratio to the first."""
    first, *others = artifacts
    head = ["", *(e.letter for e in artifacts), *(f"{e.letter} / {first.letter}" for e in others)]
    rows = [head, *_facts(artifacts)]
    for line in _lines(against):
        values = [line.value(entry) for entry in artifacts]
        if all(value is None for value in values):
            continue
        cells = [_NONE if value is None else line.text(value) for value in values]
        rows.append([line.title, *cells, *(_compare(line, values[0], v) for v in values[1:])])
    legend = [f"{entry.letter}  {entry.measurement.artifact.path}" for entry in artifacts]
    return "\n".join([*legend, "", *aligned(rows), *_notes(artifacts)])


def _facts(artifacts: Sequence[Entry]) -> list[list[str]]:
    manifests = [entry.measurement.artifact.manifest for entry in artifacts]
    resizes = [entry.measurement.artifact.spec.preprocess for entry in artifacts]
    empty = [""] * (len(artifacts) - 1)
    return [
        ["precision", *(m.precision for m in manifests), *empty],
        ["target", *(m.target for m in manifests), *empty],
        ["canvas", *(_canvas(m.height, m.width) for m in manifests), *empty],
        ["resize to", *(f"{p.short_side}/{p.long_side}" for p in resizes), *empty],
    ]


def _canvas(height: int | None, width: int | None) -> str:
    return "any" if height is None or width is None else f"{height}x{width}"


def _lines(against: Against | None) -> list[_Line]:
    def of_stage(stage: str, percent: int) -> Callable[[Entry], float | None]:
        name = f"p{percent}_ms"
        return lambda entry: getattr(entry.stages[stage], name)

    lines = [_Line("file, MB", lambda e: e.measurement.size_bytes / 1e6, "{:.1f}".format)]
    for stage in (*STAGES, TOTAL):
        lines += [
            _Line(
                f"{stage if percent == 50 else '':<11}p{percent}, ms",
                of_stage(stage, percent),
                "{:.1f}".format,
            )
            for percent in PERCENTS
        ]
    lines += [
        _Line("images/s, sequential", _rate, "{:.2f}".format),
        _Line("images/s, streamed", lambda e: e.measurement.streamed_per_s, "{:.2f}".format),
        _Line("peak memory, MB", lambda e: _mega(e.measurement.peak_bytes), "{:.0f}".format),
        _Line(
            "peak memory streamed, MB",
            lambda e: _mega(e.measurement.stream_peak_bytes),
            "{:.0f}".format,
        ),
        _Line("detections", lambda e: e.detections, "{:.0f}".format),
        _Line("photos not certified", lambda e: e.uncertified, "{:.0f}".format, ""),
    ]
    if against is not None:
        title = "AP" if against == "labels" else "agreement AP with A"
        compared: Literal["difference", ""] = "difference" if against == "labels" else ""
        lines += [
            _Line(f"{of} {title}", _quality(of), "{:.2f}".format, compared)
            for of in ("box", "mask")
        ]
    return lines


def _quality(of: str) -> Callable[[Entry], float | None]:
    return lambda entry: None if entry.quality is None else getattr(entry.quality, of)


def _rate(entry: Entry) -> float:
    return images_per_s(entry.measurement.timings)


def _mega(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _compare(line: _Line, first: float | None, other: float | None) -> str:
    if not line.compared or first is None or other is None:
        return ""
    if line.compared == "difference":
        return f"{other - first:+.2f}"
    return f"{other / first:.2f}×" if first else _NONE


def _notes(artifacts: Sequence[Entry]) -> list[str]:
    """Notes on how to read the numbers."""
    notes = []
    calls = len(artifacts[0].measurement.timings)
    missing = [p for p in PERCENTS if calls < calls_needed(p)]
    if missing:
        needed = ", ".join(f"p{percent} ({calls_needed(percent)})" for percent in missing)
        notes.append(
            f"{plural(calls, 'call')} each, too few for {needed}; use more photos or --repeats"
        )
    resizes = {
        (
            e.measurement.artifact.spec.preprocess.short_side,
            e.measurement.artifact.spec.preprocess.long_side,
        )
        for e in artifacts
    }
    if len(resizes) > 1:
        notes.append("the artifacts resize photos differently, so their times are not comparable")
    return ["", *(f"note: {note}" for note in notes)] if notes else []


def document(artifacts: Sequence[Entry], against: Against | None, setup: dict[str, Any]) -> Any:
    """The JSON document; times in milliseconds, memory in bytes, AP in points of 100."""
    return {
        "schema_version": SCHEMA_VERSION,
        **setup,
        "quality_against": against,
        "artifacts": [_row(entry, artifacts[0]) for entry in artifacts],
    }


def _row(entry: Entry, first: Entry) -> dict[str, Any]:
    measurement, manifest = entry.measurement, entry.measurement.artifact.manifest
    preprocess = measurement.artifact.spec.preprocess
    p50, first_p50 = entry.stages[TOTAL].p50_ms, first.stages[TOTAL].p50_ms
    return {
        "artifact": measurement.artifact.path.name,
        "size_bytes": measurement.size_bytes,
        "precision": manifest.precision,
        "target": manifest.target,
        "lowering": manifest.lowering,
        "canvas_hw": None if manifest.height is None else [manifest.height, manifest.width],
        "resize": [preprocess.short_side, preprocess.long_side],
        "calls": len(measurement.timings),
        "stages": {stage: asdict(times) for stage, times in entry.stages.items()},
        "total_p50_ratio": p50 / first_p50 if p50 and first_p50 else None,
        "images_per_s": _rate(entry),
        "images_per_s_streamed": measurement.streamed_per_s,
        "peak_memory_bytes": measurement.peak_bytes,
        "peak_memory_streamed_bytes": measurement.stream_peak_bytes,
        "detections": entry.detections,
        "photos_not_certified": entry.uncertified,
        "box_ap": None if entry.quality is None else entry.quality.box,
        "mask_ap": None if entry.quality is None else entry.quality.mask,
    }


def draw(artifacts: Sequence[Entry], path: Path) -> None:
    """Stacked medians of the stages, a bar per artifact, with a whisker to the slowest calls.

    The whisker ends at the 99th percentile of whole calls, or at the slowest call if there were
    too few.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    figure, axes = new_figure(8.0, 1.6 + 0.6 * len(artifacts))
    rows = range(len(artifacts))
    ends = [0.0] * len(artifacts)
    for stage in STAGES:
        medians = [entry.stages[stage].p50_ms or 0.0 for entry in artifacts]
        axes.barh(rows, medians, 0.6, left=ends, color=_COLORS[stage], label=stage)
        ends = [end + median for end, median in zip(ends, medians, strict=True)]
    is_p99 = artifacts[0].stages[TOTAL].p99_ms is not None
    worst = [entry.stages[TOTAL].p99_ms or entry.stages[TOTAL].most_ms for entry in artifacts]
    lengths = [max(w - end, 0.0) for w, end in zip(worst, ends, strict=True)]
    axes.errorbar(
        ends,
        rows,
        xerr=[[0.0] * len(artifacts), lengths],
        fmt="none",
        ecolor="black",
        capsize=4,
        label="to p99 of whole calls" if is_p99 else "to the slowest call",
    )
    axes.set_yticks(list(rows), [_title(entry) for entry in artifacts], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms per photo, medians")
    axes.legend(fontsize=8, ncols=len(STAGES) + 1, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    save_figure(figure, path)


def _title(entry: Entry) -> str:
    artifact = entry.measurement.artifact
    return f"{entry.letter}  {artifact.path.name}\n{artifact.manifest.precision}"
