"""A bar chart of a benchmark: the time of each stage of each artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.benchmarking.report import Entry
from runtime.benchmarking.timings import STAGES, TOTAL
from runtime.cli.figure import BLUE, GREEN, LIGHT_BLUE, ORANGE, new_figure, save_figure

_COLORS = {"decode": LIGHT_BLUE, "preprocess": GREEN, "network": BLUE, "results": ORANGE}


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
