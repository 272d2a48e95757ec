"""What a benchmark found, as a table for people and as data for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runtime.benchmarking.quality import Quality
from runtime.benchmarking.race import Lap
from runtime.benchmarking.samples import (
    PERCENTS,
    STAGES,
    TOTAL,
    Spread,
    calls_needed,
    images_per_s,
    spreads,
)
from runtime.cli.console import aligned

SCHEMA_VERSION = 1
_NONE = "–"
Against = Literal["labels", "first"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact's row in the report; `quality` is None where nothing was compared."""

    letter: str
    lap: Lap
    stages: dict[str, Spread]
    quality: Quality | None

    @property
    def detections(self) -> int:
        """On all photos together."""
        return sum(len(one.kept) for one in self.lap.seen)

    @property
    def uncertified(self) -> int:
        """Photos whose result the graph could not certify."""
        return sum(not one.kept.exact for one in self.lap.seen)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the table: a number per artifact, how to show it, and how to compare it."""

    title: str
    value: Callable[[Entry], float | None]
    text: Callable[[float], str]
    compared: Literal["ratio", "difference", ""] = "ratio"


def entries(laps: Sequence[Lap], qualities: Sequence[Quality | None]) -> list[Entry]:
    """Letters for the artifacts, and percentiles of their times."""
    return [
        Entry(_letter(place), lap, spreads(lap.timings), quality)
        for place, (lap, quality) in enumerate(zip(laps, qualities, strict=True))
    ]


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"#{place + 1}"


def table(found: Sequence[Entry], against: Against | None) -> str:
    """Aligned text: a line per quantity, a column per artifact, then its ratio to the first."""
    first, *others = found
    head = ["", *(e.letter for e in found), *(f"{e.letter} / {first.letter}" for e in others)]
    rows = [head, *_facts(found)]
    for line in _lines(against):
        values = [line.value(entry) for entry in found]
        if all(value is None for value in values):
            continue
        cells = [_NONE if value is None else line.text(value) for value in values]
        rows.append([line.title, *cells, *(_compare(line, values[0], v) for v in values[1:])])
    legend = [f"{entry.letter}  {entry.lap.artifact.path}" for entry in found]
    return "\n".join([*legend, "", *aligned(rows), *_notes(found)])


def _facts(found: Sequence[Entry]) -> list[list[str]]:
    manifests = [entry.lap.artifact.manifest for entry in found]
    resizes = [entry.lap.artifact.spec.preprocess for entry in found]
    empty = [""] * (len(found) - 1)
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

    lines = [_Line("file, MB", lambda e: e.lap.size_bytes / 1e6, "{:.1f}".format)]
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
        _Line("images/s, one call after another", _rate, "{:.2f}".format),
        _Line("images/s, streamed", lambda e: e.lap.streamed_per_s, "{:.2f}".format),
        _Line("peak memory, MB", lambda e: _mega(e.lap.peak_bytes), "{:.0f}".format),
        _Line(
            "peak memory streamed, MB", lambda e: _mega(e.lap.stream_peak_bytes), "{:.0f}".format
        ),
        _Line("detections", lambda e: e.detections, "{:.0f}".format),
        _Line("photos not certified", lambda e: e.uncertified, "{:.0f}".format, ""),
    ]
    if against is not None:
        title = "AP" if against == "labels" else "agreement AP with A"
        compared: Literal["difference", ""] = "difference" if against == "labels" else ""
        lines += [
            _Line(f"{kind} {title}", _quality(kind), "{:.2f}".format, compared)
            for kind in ("box", "mask")
        ]
    return lines


def _quality(kind: str) -> Callable[[Entry], float | None]:
    return lambda entry: None if entry.quality is None else getattr(entry.quality, kind)


def _rate(entry: Entry) -> float:
    return images_per_s(entry.lap.timings)


def _mega(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _compare(line: _Line, first: float | None, other: float | None) -> str:
    if not line.compared or first is None or other is None:
        return ""
    if line.compared == "difference":
        return f"{other - first:+.2f}"
    return f"{other / first:.2f}×" if first else _NONE


def _notes(found: Sequence[Entry]) -> list[str]:
    """What a reader must know to read the numbers right."""
    notes = []
    calls = len(found[0].lap.timings)
    missing = [p for p in PERCENTS if calls < calls_needed(p)]
    if missing:
        needed = ", ".join(f"p{percent} {calls_needed(percent)}" for percent in missing)
        notes.append(f"n = {calls} calls each; needed for {needed}: more photos or --repeats")
    resizes = {
        (e.lap.artifact.spec.preprocess.short_side, e.lap.artifact.spec.preprocess.long_side)
        for e in found
    }
    if len(resizes) > 1:
        notes.append("they resize photos differently, so that their networks do not do equal work")
    return ["", *(f"note: {note}" for note in notes)] if notes else []


def document(found: Sequence[Entry], against: Against | None, setup: dict[str, Any]) -> Any:
    """The same as JSON data; times in milliseconds, memory in bytes, AP in points of 100."""
    return {
        "schema_version": SCHEMA_VERSION,
        **setup,
        "quality_against": against,
        "artifacts": [_row(entry, found[0]) for entry in found],
    }


def _row(entry: Entry, first: Entry) -> dict[str, Any]:
    lap, manifest = entry.lap, entry.lap.artifact.manifest
    preprocess = lap.artifact.spec.preprocess
    p50, first_p50 = entry.stages[TOTAL].p50_ms, first.stages[TOTAL].p50_ms
    return {
        "artifact": lap.artifact.path.name,
        "size_bytes": lap.size_bytes,
        "precision": manifest.precision,
        "target": manifest.target,
        "lowering": manifest.lowering,
        "canvas_hw": None if manifest.height is None else [manifest.height, manifest.width],
        "resize": [preprocess.short_side, preprocess.long_side],
        "calls": len(lap.timings),
        "stages": {stage: asdict(times) for stage, times in entry.stages.items()},
        "total_p50_ratio": p50 / first_p50 if p50 and first_p50 else None,
        "images_per_s": _rate(entry),
        "images_per_s_streamed": lap.streamed_per_s,
        "peak_memory_bytes": lap.peak_bytes,
        "peak_memory_streamed_bytes": lap.stream_peak_bytes,
        "detections": entry.detections,
        "photos_not_certified": entry.uncertified,
        "box_ap": None if entry.quality is None else entry.quality.box,
        "mask_ap": None if entry.quality is None else entry.quality.mask,
    }
