"""What a quantisation tells: lines, `quantize.json`, pictures."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from calib.calibration.photos import ADVISED
from calib.calibration.run import CalibrationRun
from calib.calibration.work import Kernels
from calib.evaluation.agreement import LEAST_SURE
from calib.evaluation.measure import ApChange, Proof
from calib.evaluation.rows import Proofs
from calib.options import QuantizeOptions
from calib.report.histograms import draw_histograms
from calib.report.plots import draw_ladder, draw_sensitivity
from calib.report.tables import change_table, proof_table
from calib.report.tensor_stats import Seen
from calib.search.search import Choice
from calib.search.sensitivity import Sensitivity
from export.precision.ranges import RangeReport
from maskport import __version__
from runtime.cli.console import Bar, printable
from runtime.files import atomic_path, make_folder

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was written and what became of it.

    `layers` names the nodes in 8 bits. `share` is that of the multiply-adds whose data and weights
    are both quantised, on the first photos; None where there were none. `kernels` is None for a
    file that ONNX Runtime does not run on a CPU as it is written. `model_sha256` is of the FP32
    file. `run` is None where no photo was needed. `choice` is there with a
    budget, `proofs` with evaluation photos, `ranges` with a rest in FP16 where there were photos.
    `seen` is what was counted of the quantised tensors, by methods that count.
    `has_keypoints` says that the model answers what agreement AP does not judge.
    `example` is a photo that could be used, None where there was none.
    `reduced_range` says that weights have 7 bits, `sums_saturate` that this CPU's sums need that;
    see `calib.rounding.vnni`.
    """

    path: Path
    writer: str
    layers: tuple[str, ...]
    of_layers: int
    size_bytes: int
    from_bytes: int
    kernels: Kernels | None
    share: float | None
    run: CalibrationRun | None
    skipped: list[str] = field(default_factory=list)
    choice: Choice | None = None
    proofs: Proofs | None = None
    options: QuantizeOptions = field(default_factory=QuantizeOptions)
    model_sha256: str = ""
    ranges: RangeReport | None = None
    reduced_range: bool = False
    sums_saturate: bool = False
    seen: tuple[Seen, ...] = ()
    example: Path | None = None
    has_keypoints: bool = False


def print_report(report: QuantizeReport) -> None:
    """Everything but the next step."""
    for reason in report.skipped:
        print(f"warning: {printable(reason)}; skipped", file=sys.stderr)
    if report.run is not None:
        _print_run(report.run, len(report.skipped))
    if report.choice is not None:
        _print_choice(report.choice)
    size, ratio = report.size_bytes / 1e6, report.size_bytes / report.from_bytes
    print(f"{report.path} · {size:.0f} MB, {ratio:.0%} of FP32 · Q/DQ for {report.writer}")
    share = "" if report.share is None else f", {report.share:.0%} of all multiply-adds"
    print(f"{len(report.layers)} of {report.of_layers} weighted layers in 8 bits{share}")
    _print_range(report)
    if report.kernels is not None:
        print(f"ONNX Runtime on this CPU: {report.kernels}")
    if report.ranges is not None:
        print(f"the rest in FP16: {report.ranges}")
    elif report.options.rest == "fp16":
        print(
            "warning: without photos nothing says that the rest fits FP16 (largest number 65504)",
            file=sys.stderr,
        )
    if report.proofs is not None:
        _print_proofs(report.proofs)
    if report.has_keypoints and (report.proofs is not None or report.choice is not None):
        print(
            "keypoints are not judged, only boxes and masks; a budget keeps their head in floating "
            "point"
        )


def _print_run(run: CalibrationRun, skipped: int) -> None:
    used, seen = run.used, run.resumed
    print(
        f"{used} photos, {run.seconds_per_photo:.2f} s each · {seen} seen before · "
        f"{skipped} skipped"
    )
    if used + seen < ADVISED:
        print(
            f"warning: {used + seen} usable photos; ranges of fewer than {ADVISED} are not steady",
            file=sys.stderr,
        )
    if run.others:
        print(
            f"warning: the table has {run.others} photos that were not given now, and they count; "
            "delete it, or name another with --table, to do without them",
            file=sys.stderr,
        )


def _print_proofs(proofs: Proofs) -> None:
    print(
        f"proof on {proofs.photos} photos, agreement with {proofs.sure} rows that the reference is "
        "sure of:"
    )
    if proofs.sure < LEAST_SURE:
        print(
            f"warning: agreement on fewer than {LEAST_SURE} rows says nothing; give --eval-images "
            "of what the model knows",
            file=sys.stderr,
        )
    for line in (*proof_table(proofs.rows), *change_table(proofs.rows)):
        print(line)
    for title, reason in proofs.missing.items():
        print(f"{title}: none, {printable(reason)}")


def _print_range(report: QuantizeReport) -> None:
    if report.reduced_range:
        why = (
            ": this CPU has no VNNI, and its sums of 8-bit products overflow" * report.sums_saturate
        )
        print(f"weights in 7 bits (--reduce-range){why}")
    elif report.sums_saturate:
        print(
            "warning: this CPU has no VNNI: its sums of 8-bit products overflow at 16 bits, and "
            "what it finds is worse than the file; --reduce-range yes gives weights 7 bits",
            file=sys.stderr,
        )


def _print_choice(choice: Choice) -> None:
    ladder = choice.ladder
    ranked, held = len(choice.damage.references), choice.photos
    print(
        f"groups ranked on {ranked} calibration photos, choices judged on {held}; kept in floating "
        "point:"
    )
    for rung in ladder.rungs:
        mark = "  <- chosen" if rung is ladder.chosen else ""
        print(f"  {rung.kept:3} kept · {rung.share:4.0%} in 8 bits · {rung.scores}{mark}")
    kept = [one.group.title for one in choice.damage.ranked[: ladder.chosen.kept]]
    if kept:
        print(f"kept: {', '.join(kept)}")


def write_run(report: QuantizeReport, folder: Path, histograms: bool = False) -> list[Path]:
    """`quantize.json`, pictures where there was a budget, and one for each tensor on request.

    Raises:
        ArtifactError: the folder cannot be made or written.
        MissingDependencyError: matplotlib is not installed.
    """
    make_folder(folder)
    written = [folder / "quantize.json"]
    with atomic_path(written[0]) as temporary:
        temporary.write_text(json.dumps(_document(report), indent=1) + "\n", "utf-8")
    if report.choice is not None:
        written += [folder / "sensitivity.png", folder / "ladder.png"]
        draw_sensitivity(report.choice.damage.ranked, written[1])
        draw_ladder(report.choice.ladder, written[2])
    if histograms:
        written.append(folder / "histograms")
        draw_histograms(report.seen, written[-1], Bar(len(report.seen), "pictures").advance)
    return written


def _document(report: QuantizeReport) -> dict[str, Any]:
    import onnxruntime

    proofs = report.proofs
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "artifact": report.path.name,
        "model_sha256": report.model_sha256,
        "options": _options(report.options),
        "versions": {"maskport": __version__, "onnxruntime": onnxruntime.__version__},
        "writer": report.writer,
        "layers": len(report.layers),
        "layers_in_8_bits": list(report.layers),
        "of_layers": report.of_layers,
        "bytes": report.size_bytes,
        "bytes_fp32": report.from_bytes,
        "share_in_8_bits": report.share,
        "reduced_range": report.reduced_range,
        "sums_saturate_on_this_cpu": report.sums_saturate,
        "kernels": None if report.kernels is None else asdict(report.kernels),
        "calibration": None if report.run is None else asdict(report.run),
        "skipped": report.skipped,
        "evaluation": [] if proofs is None else [_proof(proof) for proof in proofs.rows],
        "evaluation_missing": {} if proofs is None else dict(proofs.missing),
        "evaluation_photos": 0 if proofs is None else proofs.photos,
        "evaluation_rows": 0 if proofs is None else proofs.sure,
    }
    if report.choice is not None:
        ladder = report.choice.ladder
        document["sensitivity"] = _sensitivities(report.choice.damage.ranked)
        document["ladder"] = [
            {"kept": r.kept, "share_in_8_bits": r.share, **asdict(r.scores)} for r in ladder.rungs
        ]
        document["chosen"] = ladder.chosen.kept
        document["ranked_on_photos"] = len(report.choice.damage.references)
        document["judged_on_photos"] = report.choice.photos
    return document


def _options(options: QuantizeOptions) -> dict[str, Any]:
    """What was asked for; of files only the names, which mean something on other machines too."""
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in asdict(options).items()
    }


def _sensitivities(ranked: Sequence[Sensitivity]) -> list[dict[str, Any]]:
    return [
        {
            "group": one.group.title,
            "layers": sorted(one.group.nodes),
            "share": one.share,
            # Infinity is no JSON: no noise at all is told as null, with the agreement beside it.
            "sqnr_db": one.sqnr_db if math.isfinite(one.sqnr_db or 0.0) else None,
            **asdict(one.scores),
        }
        for one in ranked
    ]


def _proof(proof: Proof) -> dict[str, Any]:
    return {
        "title": proof.title,
        "agreement": asdict(proof.scores),
        "worst_photo": proof.worst.name,
        "worst_agreement": asdict(proof.worst_scores),
        "seconds_per_photo": proof.seconds,
        "bytes": proof.size_bytes,
        "coco": [_change(change) for change in proof.changes],
    }


def _change(change: ApChange) -> dict[str, Any]:
    """NaN is no JSON: what there was nothing to find for is null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(change).items()
    }
