"""What a budget buys: `--budget` at several settings against the presets, agreement and CPU time.

R50-FPN with the fitted weights at 320/533. Every group of layers is quantised alone on the first
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_ir as ir

from bench import photos, results
from bench.fitted import export_fitted, judges
from bench.precision import calibration_photos
from bench.trade_off import draw, draw_groups
from calib.calibration.tapped_session import TappedSession
from calib.evaluation.agreement import Scores, detect
from calib.evaluation.measure import Proof, prove
from calib.graph.groups import Group
from calib.graph.presets import PRESETS, checked_preset, chosen_layers
from calib.options import QuantizeOptions
from calib.quantizer import Job, prepare
from calib.search.budget import Rung, climb, most_rungs
from calib.search.search import CHOICE_PHOTOS, PHOTOS
from calib.search.sensitivity import Damage, Sensitivity, groups_in, measure
from export.onnx_file import read_onnx
from runtime.cli.console import Bar
from runtime.predictor import Predictor
from runtime.sessions.open import open_session
from runtime.sources.photos import decode

BUDGETS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
# Box AP, AP50, mask AP of agreement, and the share of multiply-adds in 8 bits, in points.
AIM = (90.0, 99.0, 86.0, 60.0)
_TIMED = 7


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice of layers. `calibrated` is what the search saw of it, None for a preset."""

    title: str
    nodes: frozenset[str]
    calibrated: Rung | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What came of it."""

    candidate: Candidate
    share: float
    proof: Proof
    ms: float


def main() -> int:
    """Search, then evaluate; status 1 when no budget reaches the aim."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = _prepare(folder, args)
        damage, rungs = _searched(job, args.search)
        candidates = _candidates(job, damage, rungs, args.search)
        rows = _evaluated(job, candidates, folder, args.threads)
    _report(rows, damage, args)
    budgets = [row for row in rows if row.candidate.calibrated is not None]
    return 0 if any(_reaches(row) for row in budgets) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qdq", default="onnxruntime", choices=("onnxruntime", "tensorrt"))
    parser.add_argument("--tables", type=Path, help="folder for the calibration table, to keep")
    parser.add_argument("--search", type=Path, help="file for what the search saw, to go on from")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--picture", type=Path, help="PNG of what budgets buy")
    parser.add_argument("--groups", type=Path, help="PNG of what each group of layers costs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _prepare(folder: Path, args: argparse.Namespace) -> Job:
    source = export_fitted(folder)
    # The largest budget: rounding is learned for all layers that a budget may choose.
    options = QuantizeOptions(writer=args.qdq, budget=max(BUDGETS), threads=args.threads)
    files = calibration_photos()
    bar = Bar(2 * len(files), "photos, ranges and rounding")
    table = (args.tables or folder) / f"{options.method}.table.json"
    return prepare(read_onnx(source), source, table, files, options, bar.advance)


def _searched(job: Job, path: Path | None) -> tuple[Damage, dict[int, Rung]]:
    """The groups' costs; those that a file of an earlier run holds are not measured again."""
    known, rungs = _known(job, path)
    used, found = job.used[:PHOTOS], list(known)

    def keep(one: Sensitivity) -> None:
        found.append(one)
        _keep(job, found, rungs, path)

    advance = Bar((len(groups_in(job)) + 1) * len(used), "photos, groups").advance
    return measure(job, used, advance, known, keep), rungs


def _known(job: Job, path: Path | None) -> tuple[list[Sensitivity], dict[int, Rung]]:
    if path is None or not path.exists():
        return [], {}
    known = json.loads(path.read_text("utf-8"))
    if known["model_sha256"] != job.file.sha256 or known["qdq"] != job.writer:
        sys.exit(f"error: {path}: a search of another model or placement; delete it")
    rungs = {one["kept"]: _rung(one) for one in known["rungs"]}
    return [_sensitivity(one) for one in known["groups"]], rungs


def _candidates(
    job: Job, damage: Damage, rungs: dict[int, Rung], path: Path | None
) -> list[Candidate]:
    used = job.used[:CHOICE_PHOTOS]
    found: list[Candidate] = []
    session = TappedSession(job.model, job.artifact, threads=job.options.threads)
    references = detect(session, used, Bar(len(used), "photos, reference").advance)
    for budget in BUDGETS:
        bar = Bar(most_rungs(len(damage.ranked)) * len(used), f"photos, budget {budget:g}")
        rung = climb(job, damage, references, used, budget, bar.advance, rungs).chosen
        _keep(job, damage.ranked, rungs, path)
        if found and found[-1].nodes == rung.nodes:
            # A larger budget that buys nothing more is the same file: one row with both names.
            found[-1] = replace(found[-1], title=f"{found[-1].title}, {budget:g}")
        else:
            found.append(Candidate(f"budget {budget:g}", rung.nodes, rung))
    for preset in PRESETS:
        chosen = chosen_layers(job.layers, checked_preset(preset))
        nodes = frozenset(str(layer.node.name) for layer in chosen)
        found.append(Candidate(f"preset {preset}", nodes))
    return found


def _evaluated(
    job: Job, candidates: Sequence[Candidate], folder: Path, threads: int | None
) -> list[Row]:
    val = photos.val_photos()
    (on,) = judges((val, None))
    paths, shares, proofs = [], [], []
    for number, one in enumerate(candidates):
        model, placement = job.quantised(one.nodes)
        paths.append(folder / f"{number}.onnx")
        ir.save(model, paths[-1])
        shares.append(job.share(placement))
        size = paths[-1].stat().st_size
        advance = Bar(len(val), f"photos, {one.title}").advance
        proofs.append(prove(one.title, open_session(paths[-1], None, threads), size, on, advance))
        print(one.title, f"{shares[-1]:.1%}", proofs[-1].scores, flush=True)
    times = _times(paths, val[0], threads)
    return [Row(*four) for four in zip(candidates, shares, proofs, times, strict=True)]


def _times(paths: Sequence[Path], photo: Path, threads: int | None) -> list[float]:
    """Median ms of a photo, from pixels to masks; files in turn, so that all see the same load."""
    pixels = decode(photo)
    predictors = [Predictor(open_session(path, None, threads)) for path in paths]
    seconds: list[list[float]] = [[] for _ in paths]
    for _ in range(_TIMED + 1):
        for predictor, kept in zip(predictors, seconds, strict=True):
            started = time.perf_counter()
            predictor.predict(pixels)
            kept.append(time.perf_counter() - started)
    for predictor in predictors:
        predictor.close()
    return [1e3 * statistics.median(kept[1:]) for kept in seconds]


def _keep(
    job: Job, measured: Sequence[Sensitivity], rungs: dict[int, Rung], path: Path | None
) -> None:
    if path is None:
        return
    groups = [
        {
            "title": one.group.title,
            "nodes": sorted(one.group.nodes),
            "scores": asdict(one.scores),
            "sqnr_db": one.sqnr_db,
            "share": one.share,
        }
        for one in measured
    ]
    kept = [
        {"kept": r.kept, "share": r.share, "scores": asdict(r.scores), "nodes": sorted(r.nodes)}
        for r in rungs.values()
    ]
    document = {"model_sha256": job.file.sha256, "qdq": job.writer, "groups": groups, "rungs": kept}
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _sensitivity(one: dict[str, Any]) -> Sensitivity:
    group = Group(one["title"], frozenset(one["nodes"]))
    return Sensitivity(group, Scores(**one["scores"]), one["sqnr_db"], one["share"])


def _rung(one: dict[str, Any]) -> Rung:
    return Rung(one["kept"], one["share"], Scores(**one["scores"]), frozenset(one["nodes"]))


def _reaches(row: Row) -> bool:
    found = row.proof.scores
    reached = (found.box, found.box50, found.mask or 0.0, 100 * row.share)
    return all(value >= aim for value, aim in zip(reached, AIM, strict=True))


def _cells(row: Row) -> list[str]:
    found, rung = row.proof.scores, row.candidate.calibrated
    return [
        row.candidate.title,
        "" if rung is None else f"{rung.scores.loss:.1f}",
        "" if rung is None else str(rung.kept),
        f"{100 * row.share:.0f} %",
        *(f"{n:.1f}" for n in (found.box, found.box50, found.mask or 0.0, found.mask50 or 0.0)),
        f"{row.ms:.0f}",
        f"{row.proof.size_bytes / 1e6:.0f}",
        "" if rung is None else ("yes" if _reaches(row) else "no"),
    ]


def _report(rows: Sequence[Row], damage: Damage, args: argparse.Namespace) -> None:
    columns = (
        "choice", "lost in the search", "groups kept", "in 8 bits", "box AP", "box AP50",
        "mask AP", "mask AP50", "ms", "MB", "reaches the aim",
    )  # fmt: skip
    cells = [_cells(row) for row in rows]
    groups = [
        [
            one.group.title,
            f"{100 * one.share:.1f} %",
            f"{100 - one.scores.box:.1f}",
            "" if one.scores.mask is None else f"{100 - one.scores.mask:.1f}",
            "" if one.sqnr_db is None else f"{one.sqnr_db:.1f}",
        ]
        for one in damage.ranked
    ]
    names = ("group", "of multiply-adds", "box AP lost", "mask AP lost", "dB")
    body = "\n\n".join(
        [
            results.table(columns, cells),
            f"Q/DQ for {args.qdq}. AP: agreement with the eager model's rows of score 0.3 and more "
            f"on val2017; the aim is box AP {AIM[0]:g}, AP50 {AIM[1]:g}, mask AP {AIM[2]:g} with "
            f"{AIM[3]:g} % in 8 bits. `lost in the search`: points of AP, box or mask, on the "
            f"{CHOICE_PHOTOS} calibration photos that the choice was made by. ms: pixels to masks, "
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
