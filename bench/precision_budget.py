"""`--budget` at several settings against the presets: agreement and CPU time.

R50-FPN with the fitted weights at 320/533. Every group of layers is quantized alone on the first
photos of train2017 without the fitted ones, and each budget chooses by that; val2017 is read after
all is chosen. Exit status 1 when no budget reaches the aim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_ir as ir

from bench import photos, results
from bench.fitted import export_fitted, references
from bench.precision import calibration_photos
from bench.trade_off import draw, draw_groups
from calib.calibration.tapped_session import TappedSession
from calib.evaluation.agreement import Scores, detect
from calib.evaluation.measure import EvaluationRow, evaluate_session
from calib.evaluation.photos import EvaluationSet
from calib.graph.groups import Group
from calib.graph.layers import names_of
from calib.graph.presets import PRESETS, chosen_layers
from calib.options import QuantizeOptions
from calib.quantizer import Quantizer, prepare
from calib.search.search import PHOTOS, SEARCH_PHOTOS, Candidate, most_candidates, search_budget
from calib.search.sensitivity import (
    GroupSensitivity,
    Sensitivity,
    measure_sensitivity,
    searchable_groups,
)
from export.onnx_file import read_onnx
from runtime.cli.console import Bar
from runtime.predictor import Predictor
from runtime.sessions.open import open_session
from runtime.sources.photos import decode

BUDGETS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
# Box AP, AP50, mask AP of agreement, and the multiply-adds in 8 bits, in points.
AIM = (90.0, 99.0, 86.0, 60.0)
_TIMED = 7


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of layers; `candidate` is its result in the search, None for a preset."""

    title: str
    nodes: frozenset[str]
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The results of a choice."""

    choice: Choice
    fraction: float
    evaluation: EvaluationRow
    ms: float


def main() -> int:
    """Search, then evaluate; status 1 when no budget reaches the aim."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quantizer = _prepare(folder, args)
        sensitivity, known = _search(quantizer, args.search)
        choices = _choices(quantizer, sensitivity, known, args.search)
        rows = _evaluate(quantizer, choices, folder, args.threads)
    _report(rows, sensitivity, args)
    budgets = [row for row in rows if row.choice.candidate is not None]
    return 0 if any(_reaches(row) for row in budgets) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qdq", default="onnxruntime", choices=("onnxruntime", "tensorrt"))
    parser.add_argument("--tables", type=Path, help="folder for the calibration table, to keep")
    parser.add_argument(
        "--search", type=Path, help="file for the results of the search, to resume it"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--picture", type=Path, help="PNG of agreement against 8 bits and time")
    parser.add_argument("--groups", type=Path, help="PNG of each group's sensitivity")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _prepare(folder: Path, args: argparse.Namespace) -> Quantizer:
    source = export_fitted(folder)
    # With a budget, GPTQ covers all layers that a search may choose.
    options = QuantizeOptions(writer=args.qdq, budget=max(BUDGETS), threads=args.threads)
    files = calibration_photos()
    table = (args.tables or folder) / f"{options.method}.table.json"
    return prepare(read_onnx(source), files, table, options, _bar)


def _bar(total: int, title: str) -> Callable[[int], None]:
    return Bar(total, f"photos, {title}").advance


def _search(quantizer: Quantizer, path: Path | None) -> tuple[Sensitivity, dict[int, Candidate]]:
    """The groups' sensitivity; results in the file of an earlier run are not measured again."""
    known, candidates = _known(quantizer, path)
    used, groups = quantizer.photos[:PHOTOS], list(known)

    def save(one: GroupSensitivity) -> None:
        groups.append(one)
        _save(quantizer, groups, candidates, path)

    quantizer.context.start((len(searchable_groups(quantizer)) + 1) * len(used), "groups")
    return measure_sensitivity(quantizer, used, known, save), candidates


def _known(
    quantizer: Quantizer, path: Path | None
) -> tuple[list[GroupSensitivity], dict[int, Candidate]]:
    if path is None or not path.exists():
        return [], {}
    known, context = json.loads(path.read_text("utf-8")), quantizer.context
    if known["model_sha256"] != context.model_sha256 or known["qdq"] != context.writer:
        sys.exit(f"error: {path}: a search of another model or placement; delete it")
    candidates = {one["kept"]: _candidate(one) for one in known["rungs"]}
    return [_sensitivity(one) for one in known["groups"]], candidates


def _choices(
    quantizer: Quantizer, sensitivity: Sensitivity, known: dict[int, Candidate], path: Path | None
) -> list[Choice]:
    context, used = quantizer.context, quantizer.photos[:SEARCH_PHOTOS]
    choices: list[Choice] = []
    session = TappedSession(quantizer.model, context.artifact, threads=context.threads)
    context.start(len(used), "reference")
    detections = detect(session, map(context.pixels, used), context.advance)
    for budget in BUDGETS:
        runs = most_candidates(len(sensitivity.ranked)) * len(used)
        context.start(runs, f"budget {budget:g}")
        best = search_budget(quantizer, sensitivity, detections, used, budget, known).chosen
        _save(quantizer, sensitivity.ranked, known, path)
        if choices and choices[-1].nodes == best.nodes:
            # A larger budget with the same choice: one row with both names.
            choices[-1] = replace(choices[-1], title=f"{choices[-1].title}, {budget:g}")
        else:
            choices.append(Choice(f"budget {budget:g}", best.nodes, best))
    for preset in PRESETS:
        nodes = names_of(chosen_layers(quantizer.layers, preset))
        choices.append(Choice(f"preset {preset}", frozenset(nodes)))
    return choices


def _evaluate(
    quantizer: Quantizer, choices: Sequence[Choice], folder: Path, threads: int | None
) -> list[Row]:
    val = photos.val_photos()
    (reference,) = references(EvaluationSet(val))
    paths, fractions, rows = [], [], []
    for number, one in enumerate(choices):
        model, placement = quantizer.quantized(one.nodes)
        paths.append(folder / f"{number}.onnx")
        ir.save(model, paths[-1])
        fractions.append(quantizer.work_fraction(names_of(placement.layers)))
        session, size = open_session(paths[-1], None, threads), paths[-1].stat().st_size
        advance = Bar(len(val), f"photos, {one.title}").advance
        rows.append(evaluate_session(one.title, session, size, reference, advance))
        print(one.title, f"{fractions[-1]:.1%}", rows[-1].scores, flush=True)
    times = _times(paths, val[0], threads)
    return [Row(*four) for four in zip(choices, fractions, rows, times, strict=True)]


def _times(paths: Sequence[Path], photo: Path, threads: int | None) -> list[float]:
    """Median ms of a photo, from pixels to masks; interleaved, so that all have the same load."""
    pixels = decode(photo)
    predictors = [Predictor(open_session(path, None, threads)) for path in paths]
    seconds: list[list[float]] = [[] for _ in paths]
    for _ in range(_TIMED + 1):
        for predictor, times in zip(predictors, seconds, strict=True):
            started = time.perf_counter()
            predictor.predict(pixels)
            times.append(time.perf_counter() - started)
    for predictor in predictors:
        predictor.close()
    return [1e3 * statistics.median(times[1:]) for times in seconds]


def _save(
    quantizer: Quantizer,
    measured: Sequence[GroupSensitivity],
    known: dict[int, Candidate],
    path: Path | None,
) -> None:
    if path is None:
        return
    groups = [
        {
            "title": one.group.title,
            "nodes": sorted(one.group.nodes),
            "scores": asdict(one.scores),
            "sqnr_db": one.sqnr_db,
            "share": one.fraction,
        }
        for one in measured
    ]
    candidates = [
        {"kept": c.kept, "share": c.fraction, "scores": asdict(c.scores), "nodes": sorted(c.nodes)}
        for c in known.values()
    ]
    document = {
        "model_sha256": quantizer.context.model_sha256,
        "qdq": quantizer.context.writer,
        "groups": groups,
        "rungs": candidates,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _sensitivity(one: dict[str, Any]) -> GroupSensitivity:
    group = Group(one["title"], frozenset(one["nodes"]))
    return GroupSensitivity(group, Scores(**one["scores"]), one["sqnr_db"], one["share"])


def _candidate(one: dict[str, Any]) -> Candidate:
    return Candidate(one["kept"], one["share"], Scores(**one["scores"]), frozenset(one["nodes"]))


def _reaches(row: Row) -> bool:
    scores = row.evaluation.scores
    reached = (scores.box, scores.box50, scores.mask or 0.0, 100 * row.fraction)
    return all(value >= aim for value, aim in zip(reached, AIM, strict=True))


def _cells(row: Row) -> list[str]:
    scores, candidate = row.evaluation.scores, row.choice.candidate
    return [
        row.choice.title,
        "" if candidate is None else f"{candidate.scores.loss:.1f}",
        "" if candidate is None else str(candidate.kept),
        f"{100 * row.fraction:.0f} %",
        *(f"{n:.1f}" for n in (scores.box, scores.box50, scores.mask or 0.0, scores.mask50 or 0.0)),
        f"{row.ms:.0f}",
        f"{row.evaluation.size_bytes / 1e6:.0f}",
        "" if candidate is None else ("yes" if _reaches(row) else "no"),
    ]


def _report(rows: Sequence[Row], sensitivity: Sensitivity, args: argparse.Namespace) -> None:
    columns = (
        "choice", "lost in the search", "groups kept", "in 8 bits", "box AP", "box AP50",
        "mask AP", "mask AP50", "ms", "MB", "reaches the aim",
    )  # fmt: skip
    cells = [_cells(row) for row in rows]
    groups = [
        [
            one.group.title,
            f"{100 * one.fraction:.1f} %",
            f"{100 - one.scores.box:.1f}",
            "" if one.scores.mask is None else f"{100 - one.scores.mask:.1f}",
            "" if one.sqnr_db is None else f"{one.sqnr_db:.1f}",
        ]
        for one in sensitivity.ranked
    ]
    names = ("group", "of multiply-adds", "box AP lost", "mask AP lost", "dB")
    body = "\n\n".join(
        [
            results.table(columns, cells),
            f"Q/DQ for {args.qdq}. AP: agreement with the eager model's rows of score 0.3 and more "
            f"on val2017; the aim is box AP {AIM[0]:g}, AP50 {AIM[1]:g}, mask AP {AIM[2]:g} with "
            f"{AIM[3]:g} % in 8 bits. `lost in the search`: points of AP, box or mask, on the "
            f"{SEARCH_PHOTOS} calibration photos of the search. ms: pixels to masks, "
            f"one photo, {args.threads or 'all'} threads, median of {_TIMED} in turn.",
            f"Each group alone in 8 bits, on the first {PHOTOS} of those photos, in the order in "
            "which groups are kept in floating point; dB: signal over noise at the predictors.",
            results.table(names, groups),
        ]
    )
    data = {
        "rows": [dict(zip(columns, row, strict=True)) for row in cells],
        "groups": [dict(zip(names, row, strict=True)) for row in groups],
    }
    results.write("8 bits within a budget", body, data, args.json, args.markdown)
    if args.picture is not None:
        draw(data["rows"], args.picture)
    if args.groups is not None:
        draw_groups(data["groups"], args.groups)


if __name__ == "__main__":
    sys.exit(main())
