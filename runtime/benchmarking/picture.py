"""A picture of a benchmark: where each artifact spends its time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.errors import MissingDependencyError
from runtime.benchmarking.report import Entry
from runtime.benchmarking.samples import STAGES, TOTAL
from runtime.files import atomic_path

_COLOURS = {
    "decode": "#8fb8de",
    "preprocess": "#5b8c5a",
    "network": "#1f5fa8",
    "results": "#d9822b",
}


def require_matplotlib() -> None:
    """Say so before a long run.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "the picture needs matplotlib; pip install 'maskport[eval]', or --only-speed"
        ) from error


def draw(found: Sequence[Entry], path: Path) -> None:
    """Stacked medians of the stages, a bar per artifact, and a whisker to the slowest calls.

    The whisker ends at the 99th percentile of whole calls, or at the slowest where there were too
    few.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 1.6 + 0.6 * len(found)), layout="constrained")
    axes = figure.subplots()
    places = range(len(found))
    ends = [0.0] * len(found)
    for stage in STAGES:
        medians = [entry.stages[stage].p50_ms or 0.0 for entry in found]
        axes.barh(places, medians, 0.6, left=ends, color=_COLOURS[stage], label=stage)
        ends = [end + median for end, median in zip(ends, medians, strict=True)]
    is_p99 = found[0].stages[TOTAL].p99_ms is not None
    worst = [entry.stages[TOTAL].p99_ms or entry.stages[TOTAL].most_ms for entry in found]
    reach = [max(w - end, 0.0) for w, end in zip(worst, ends, strict=True)]
    axes.errorbar(
        ends,
        places,
        xerr=[[0.0] * len(found), reach],
        fmt="none",
        ecolor="black",
        capsize=4,
        label="to p99 of whole calls" if is_p99 else "to the slowest call",
    )
    axes.set_yticks(list(places), [_title(entry) for entry in found], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms per photo, medians")
    axes.legend(fontsize=8, ncols=len(STAGES) + 1, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _title(entry: Entry) -> str:
    artifact = entry.lap.artifact
    return f"{entry.letter}  {artifact.path.name}\n{artifact.manifest.precision}"
