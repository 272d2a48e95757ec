"""`QuantizeReport`, its lines on the console, and `quantize.json`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from calib.calibration.photos import ADVISED
from calib.calibration.run import CalibrationSummary
from calib.calibration.work import Kernels
from calib.context import RunContext
from calib.evaluation.agreement import LEAST_CONFIDENT
from calib.evaluation.measure import ApChange, EvaluationRow
from calib.evaluation.rows import Evaluation
from calib.options import QuantizeOptions
from calib.report.plots import draw_histograms, draw_search, draw_sensitivity
from calib.report.tables import agreement_table, change_table
from calib.report.tensor_stats import TensorHistogram
from calib.search.search import LayerChoice
from calib.search.sensitivity import GroupSensitivity
from export.precision.ranges import RangeReport
from maskport import __version__
from runtime.cli.console import Bar, plural, printable
from runtime.files import atomic_path, make_folder

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """A quantized file and how it came about.

    Attributes:
        path: of the file.
        size_bytes: of the file.
        from_bytes: of the FP32 file.
        context: options, writer, source, skipped photos.
        layers: names of the layers in 8 bits.
        of_layers: number of weighted layers.
        fraction: of all multiply-adds whose data and weights are both quantized, on the first
            photos; None without photos.
        kernels: None for a file that ONNX Runtime does not run on a CPU as it is written.
        tensors: of the quantized activations, by methods with histograms.
        calibration: None with an imported cache.
        example: a usable photo, None without photos.
        choice: with a budget.
        ranges: of FP16 layers, where there were photos.
        evaluation: with evaluation photos.
    """

    path: Path
    size_bytes: int
    from_bytes: int
    context: RunContext
    layers: tuple[str, ...]
    of_layers: int
    fraction: float | None
    kernels: Kernels | None
    tensors: tuple[TensorHistogram, ...]
    calibration: CalibrationSummary | None
    example: Path | None
    choice: LayerChoice | None
    ranges: RangeReport | None
    evaluation: Evaluation | None

    @property
    def has_keypoints(self) -> bool:
        """Whether the model predicts keypoints, which agreement AP does not cover."""
        return self.context.artifact.spec.keypoint is not None


def print_report(report: QuantizeReport) -> None:
    """Everything but the next step."""
    context = report.context
    for reason in context.skipped.values():
        _warn(f"{printable(reason)}; skipped")
    if report.calibration is not None:
        _print_calibration(report.calibration, len(context.skipped))
    if report.choice is not None:
        _print_choice(report.choice)
    size, ratio = report.size_bytes / 1e6, report.size_bytes / report.from_bytes
    print(f"{report.path} · {size:.0f} MB, {ratio:.0%} of FP32 · Q/DQ for {context.writer}")
    work = "" if report.fraction is None else f", {report.fraction:.0%} of all multiply-adds"
    print(f"{len(report.layers)} of {report.of_layers} weighted layers in 8 bits{work}")
    _print_reduced_range(context)
    if report.kernels is not None:
        print(f"ONNX Runtime on this CPU: {report.kernels}")
    if report.ranges is not None:
        print(f"FP16 layers: {report.ranges}")
    elif context.options.float_type == "fp16":
        _warn("without photos the FP16 layers were not checked for overflow (limit 65504)")
    if report.evaluation is not None:
        _print_evaluation(report.evaluation)
    if report.has_keypoints and (report.evaluation is not None or report.choice is not None):
        print(
            "boxes and masks are compared, keypoints are not; with a budget their head stays in "
            "floating point"
        )


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _print_calibration(summary: CalibrationSummary, skipped: int) -> None:
    used, resumed = summary.used, summary.resumed
    print(
        f"{plural(used, 'photo')}, {summary.seconds_per_photo:.2f} s each · {resumed} already in "
        f"the table · {skipped} skipped"
    )
    if used + resumed < ADVISED:
        usable = plural(used + resumed, "usable photo")
        _warn(f"{usable}; with fewer than {ADVISED}, ranges are unstable")
    if summary.others:
        _warn(
            f"the ranges include {plural(summary.others, 'photo')} of the table not passed now; to "
            "exclude them, delete the table or name another with --table"
        )


def _print_evaluation(evaluation: Evaluation) -> None:
    print(
        f"evaluation on {plural(evaluation.photos, 'photo')}, agreement with "
        f"{evaluation.confident} confident detections of the reference:"
    )
    if evaluation.confident < LEAST_CONFIDENT:
        _warn(
            f"agreement with fewer than {LEAST_CONFIDENT} detections is meaningless; use "
            "--eval-images with objects of the model's classes"
        )
    for line in (*agreement_table(evaluation.rows), *change_table(evaluation.rows)):
        print(line)
    for title, reason in evaluation.missing.items():
        print(f"{title}: none, {printable(reason)}")


def _print_reduced_range(context: RunContext) -> None:
    if context.reduces_range:
        reason = (
            ": this CPU has no VNNI, and its sums of 8-bit products saturate"
            * context.accumulation_saturates
        )
        print(f"weights in 7 bits (--reduce-range){reason}")
    elif context.accumulation_saturates:
        _warn(
            "this CPU has no VNNI: its sums of 8-bit products saturate at 16 bits, so results are "
            "worse than on other machines; --reduce-range yes gives weights 7 bits"
        )


def _print_choice(choice: LayerChoice) -> None:
    ranked, search = choice.sensitivity.ranked, choice.search
    print(
        f"groups ranked on {len(choice.sensitivity.references)} calibration photos, choices "
        f"compared on {choice.photos}; groups kept in floating point:"
    )
    for one in search.candidates:
        mark = "  <- chosen" if one is search.chosen else ""
        print(f"  {one.kept:3} kept · {one.fraction:4.0%} in 8 bits · {one.scores}{mark}")
    kept = [one.group.title for one in ranked[: search.chosen.kept]]
    if kept:
        print(f"kept: {', '.join(kept)}")


def write_run(report: QuantizeReport, folder: Path, histograms: bool = False) -> list[Path]:
    """Write `quantize.json`, with a budget two plots, and on request one for each tensor.

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
        draw_sensitivity(report.choice.sensitivity.ranked, written[1])
        draw_search(report.choice.search, written[2])
    if histograms:
        written.append(folder / "histograms")
        draw_histograms(report.tensors, written[-1], Bar(len(report.tensors), "plots").advance)
    return written


def _document(report: QuantizeReport) -> dict[str, Any]:
    import onnxruntime

    context, evaluation = report.context, report.evaluation
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "artifact": report.path.name,
        "model_sha256": context.model_sha256,
        "options": _options(context.options),
        "versions": {"maskport": __version__, "onnxruntime": onnxruntime.__version__},
        "writer": context.writer,
        "layers": len(report.layers),
        "layers_in_8_bits": list(report.layers),
        "of_layers": report.of_layers,
        "bytes": report.size_bytes,
        "bytes_fp32": report.from_bytes,
        "share_in_8_bits": report.fraction,
        "reduced_range": context.reduces_range,
        "sums_saturate_on_this_cpu": context.accumulation_saturates,
        "kernels": None if report.kernels is None else asdict(report.kernels),
        "calibration": None if report.calibration is None else asdict(report.calibration),
        "skipped": list(context.skipped.values()),
        "evaluation": [] if evaluation is None else [_row(row) for row in evaluation.rows],
        "evaluation_missing": {} if evaluation is None else dict(evaluation.missing),
        "evaluation_photos": 0 if evaluation is None else evaluation.photos,
        "evaluation_rows": 0 if evaluation is None else evaluation.confident,
    }
    if report.choice is not None:
        sensitivity, search = report.choice.sensitivity, report.choice.search
        document["sensitivity"] = _sensitivities(sensitivity.ranked)
        document["ladder"] = [
            {"kept": c.kept, "share_in_8_bits": c.fraction, **asdict(c.scores)}
            for c in search.candidates
        ]
        document["chosen"] = search.chosen.kept
        document["ranked_on_photos"] = len(sensitivity.references)
        document["judged_on_photos"] = report.choice.photos
    return document


def _options(options: QuantizeOptions) -> dict[str, Any]:
    """The options; of files only the names, which are the same on other machines."""
    named = {field.name: getattr(options, field.name) for field in fields(options)}
    model = named.pop("reference_model")
    if model is not None:
        named["reference_model"] = getattr(model, "reference", type(model).__name__)
    return {name: v.name if isinstance(v, Path) else v for name, v in named.items()}


def _sensitivities(ranked: Sequence[GroupSensitivity]) -> list[dict[str, Any]]:
    return [
        {
            "group": one.group.title,
            "layers": sorted(one.group.nodes),
            "share": one.fraction,
            # JSON has no infinity: without noise this is null.
            "sqnr_db": one.sqnr_db if math.isfinite(one.sqnr_db or 0.0) else None,
            **asdict(one.scores),
        }
        for one in ranked
    ]


def _row(row: EvaluationRow) -> dict[str, Any]:
    return {
        "title": row.title,
        "agreement": asdict(row.scores),
        "worst_photo": row.worst.name,
        "worst_agreement": asdict(row.worst_scores),
        "seconds_per_photo": row.seconds,
        "bytes": row.size_bytes,
        "coco": [_change(change) for change in row.changes],
    }


def _change(change: ApChange) -> dict[str, Any]:
    """JSON has no NaN: without ground truth the numbers are null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(change).items()
    }
