"""FP16 and BF16 graphs under emulation against torchvision's eager model, both lowerings.

Agreement AP on val2017, and the change of COCO AP on the fitted photos, at 320/533. `native` and
the eager model that it is compared with have a canvas of 320x544, or 544x320 for portrait photos.
`fp32` and `fp16 weights` run in ONNX Runtime, which computes in float32. Exit status 1 when a row
misses its aim or a tensor overflows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos, results
from export.onnx import export_onnx
from export.parity.torchvision_reference import TorchvisionEager
from export.precision.ranges import RangeReport
from export.precision.session import EmulatedSession
from export.tracing import GraphShape
from model.checkpoint import SpecOptions
from model.spec import ModelSpec
from runtime.cli.console import Bar
from runtime.compare.agreement import TRUTH_SCORE, agreement_ap
from runtime.compare.coco_ap import evaluate
from runtime.compare.half_limits import HALF_LIMITS, check_half_run
from runtime.compare.matching import compare
from runtime.compare.result_protocol import DetectionResult
from runtime.formats.coco import rows_by_class
from runtime.predictor import Predictor
from runtime.sessions.open import open_session
from runtime.sessions.session import Session
from runtime.sources.photos import decode

SHORT, LONG = 320, 533
CANVASES = ((320, 544), (544, 320))
# ONNX Runtime computes an FP16 file in float32, so only the weights are rounded.
WEIGHTS_ALONE = "fp16 weights"
PRECISIONS = ("fp32", WEIGHTS_ALONE, "fp16", "bf16")
# The agreement of a prototype that rounded every layer's output, minus a margin.
AIMS = {"fp32": 99.99, "fp16": 99.5, "bf16": 94.0}
Canvas = tuple[int, int] | None


@dataclass(slots=True)
class Row:
    """One precision in one lowering on one set of photos."""

    lowering: str
    precision: str
    photos: str
    eager: list[DetectionResult] = field(default_factory=list)
    candidate: list[DetectionResult] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ap: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def agreement(self) -> tuple[float, float, float, float]:
        """Box AP and AP50, mask AP and AP50, in points."""
        agreement = agreement_ap(self.eager, self.candidate)
        assert agreement.mask is not None
        both = (agreement.box, agreement.mask)
        return tuple(100 * n for one in both for n in (one.ap, one.ap50))  # type: ignore[return-value]


@dataclass(slots=True)
class Lowering:
    """Photos and eager detections of one lowering, and the ranges and sizes of its files."""

    name: str
    sets: dict[str, list[Path]]
    eager: dict[Path, DetectionResult]
    canvas_of: dict[Path, Canvas]
    ranges: list[RangeReport] = field(default_factory=list)
    size_mb: dict[str, float] = field(default_factory=dict)


def main() -> int:
    """Run every row; status 1 when one misses its aim or overflows."""
    args = _arguments()
    sets = {"val2017": photos.val_photos(), "fitted": photos.fitted_photos()}
    sets = {name: files[: args.photos] for name, files in sets.items()}
    rows: list[Row] = []
    lowerings: list[Lowering] = []
    for name in args.lowering or ("standard", "native"):
        lowering = _run_eager(name, sets)
        lowerings.append(lowering)
        for precision in PRECISIONS:
            rows += _run(lowering, precision)
    _report(rows, lowerings, args)
    overflowed = any(report.overflowed for one in lowerings for report in one.ranges)
    return 0 if all(_passed(row) for row in rows) and not overflowed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, help="only so many photos per set")
    parser.add_argument("--lowering", action="append", choices=("standard", "native"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _run_eager(name: str, sets: dict[str, list[Path]]) -> Lowering:
    """The eager model's detections, on the canvases of this lowering."""
    checkpoint = photos.load_fitted(SHORT, LONG)
    model = photos.torchvision_model(checkpoint)
    canvases: tuple[Canvas, ...] = CANVASES if name == "native" else (None,)
    eager = {canvas: TorchvisionEager(checkpoint, canvas, model) for canvas in canvases}
    lowering = Lowering(name, sets, {}, {})
    files = [file for of_set in sets.values() for file in of_set]
    bar = Bar(len(files), f"photos, eager for {name}")
    for file in files:
        pixels = decode(file)
        # Landscape and portrait, if there are two canvases.
        canvas = canvases[0 if pixels.shape[1] >= pixels.shape[0] else -1]
        lowering.canvas_of[file] = canvas
        lowering.eager[file] = eager[canvas].run(pixels).detections
        bar.advance()
    return lowering


def _run(lowering: Lowering, precision: str) -> list[Row]:
    """One precision on all photos; one session at a time, to save memory."""
    detections: dict[Path, DetectionResult] = {}
    seconds: dict[Path, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for canvas in dict.fromkeys(lowering.canvas_of.values()):
            path = Path(folder) / f"{canvas}.onnx"
            _export(path, canvas, precision.split()[0])
            lowering.size_mb[precision] = path.stat().st_size / 1e6
            # Recording ranges takes a third of the time; BF16 has float32's range.
            session: Session = (
                open_session(path, None, None)
                if precision in ("fp32", WEIGHTS_ALONE)
                else EmulatedSession(path, ranges=precision == "fp16")
            )
            files = [file for file, on in lowering.canvas_of.items() if on == canvas]
            bar = Bar(len(files), f"photos, {lowering.name} {precision} {canvas or ''}")
            with Predictor(session, on_uncertified="ignore") as predictor:
                for file in files:
                    started = time.perf_counter()
                    detections[file] = predictor.predict(file)
                    seconds[file] = time.perf_counter() - started
                    bar.advance()
            if precision == "fp16" and isinstance(session, EmulatedSession):
                lowering.ranges.append(session.ranges)
    rows = []
    for name, files in lowering.sets.items():
        row = Row(lowering.name, precision, name)
        row.eager = [lowering.eager[file] for file in files]
        row.candidate = [detections[file] for file in files]
        row.names = [file.name for file in files]
        row.seconds = sum(seconds[file] for file in files)
        if name == "fitted":
            row.ap = _coco_ap(row, photos.load_fitted(SHORT, LONG).spec)
        rows.append(row)
    return rows


def _export(path: Path, canvas: Canvas, precision: str) -> None:
    export_onnx(
        photos.fitted_weights(),
        path,
        SpecOptions(short_side=SHORT, long_side=LONG),
        GraphShape() if canvas is None else GraphShape(1, *canvas),
        check_photo=None,
        target="onnxruntime" if canvas is None else "tensorrt-rtx",
        precision=precision,
    )


def _coco_ap(row: Row, spec: ModelSpec) -> dict[str, tuple[float, float]]:
    """COCO AP of the candidate and its change, in points."""
    truth_file = photos.data_folder() / "coco" / "annotations" / "instances_train2017.json"
    truth = json.loads(truth_file.read_text("utf-8"))
    ids = [int(Path(name).stem) for name in row.names]

    def score(side: Sequence[DetectionResult], iou_type: str) -> float:
        coco_rows = [
            dict(coco_row)
            for detections, image_id in zip(side, ids, strict=True)
            for coco_row in rows_by_class(detections, image_id, spec.classes)
        ]
        return 100 * evaluate(truth, coco_rows, iou_type, ids).ap  # type: ignore[arg-type]

    ap: dict[str, tuple[float, float]] = {}
    for iou_type in ("bbox", "segm"):
        candidate = score(row.candidate, iou_type)
        ap[iou_type] = candidate, candidate - score(row.eager, iou_type)
    return ap


def _passed(row: Row) -> bool:
    aim = AIMS.get(row.precision, 0.0)
    return row.photos != "val2017" or row.agreement[0] >= aim


def _report(rows: list[Row], lowerings: list[Lowering], args: argparse.Namespace) -> None:
    columns = (
        "lowering", "precision", "photos", "eager rows", "box AP", "box AP50", "mask AP",
        "mask AP50", "COCO box AP", "COCO mask AP", "reproduced", "worst photo", "s/photo", "MB",
    )  # fmt: skip
    sizes = {one.name: one.size_mb for one in lowerings}
    cells = [_cells(row, sizes[row.lowering][row.precision]) for row in rows]
    ranges = [f"- {one.name} fp16: {report}" for one in lowerings for report in one.ranges]
    overflows = [
        f"- {one.name} fp16: {tensor}"
        for one in lowerings
        for report in one.ranges
        for tensor in report.overflowed
    ]
    body = "\n\n".join(
        [
            results.table(columns, cells),
            f"Box AP to mask AP50: agreement with the eager model's rows with a score of at least "
            f"{TRUTH_SCORE}. COCO AP, and in parentheses its change from the eager model's. "
            "`reproduced` and `worst photo`: the fraction that an export's check measures "
            "(`runtime/compare/half_limits.py`), over all photos and of the worst one. "
            f"`{WEIGHTS_ALONE}`: the FP16 file in ONNX Runtime, in float32 except for its weights.",
            "Ranges, over all photos:\n\n" + "\n".join(ranges),
            "Overflows: " + ("\n\n" + "\n".join(overflows) if overflows else "none."),
        ]
    )
    data = {
        "rows": [dict(zip(columns, row, strict=True)) for row in cells],
        "ranges": ranges,
        "overflows": overflows,
    }
    title = "Half precision under emulation against torchvision's eager model"
    results.write(title, body, data, args.json, args.markdown)


def _cells(row: Row, size_mb: float) -> list[str]:
    confident = sum(int((e.scores >= TRUTH_SCORE).sum()) for e in row.eager)
    ap = [f"{value:.2f} ({change:+.2f})" for value, change in row.ap.values()] or ["", ""]
    limits = HALF_LIMITS["bf16" if row.precision == "bf16" else "fp16"]
    pairs = zip(row.eager, row.candidate, row.names, strict=True)
    compared = [compare(eager, candidate, name) for eager, candidate, name in pairs]
    fractions = [check_half_run([c], limits).fraction for c in compared]
    return [
        row.lowering,
        row.precision,
        f"{len(row.names)} of {row.photos}",
        str(confident),
        *(f"{value:.2f}" for value in row.agreement),
        *ap,
        f"{100 * check_half_run(compared, limits).fraction:.1f} %",
        f"{100 * min(fractions):.1f} %",
        f"{row.seconds / len(row.names):.1f}",
        f"{size_mb:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
