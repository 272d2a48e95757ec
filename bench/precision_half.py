"""FP16 and BF16 graphs under emulation against torchvision's eager model, both lowerings.

Agreement AP on val2017, and the change of COCO AP on the fitted photos, at 320/533. `native` has
a canvas of 320x544, or 544x320 for portrait photos, and so has the eager model that it is compared
with. FP32 rows run the same programs in ONNX Runtime. Exit status 1 when a row misses its aim or
a tensor overflows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos, results
from export.eager import TorchvisionEager
from export.onnx import export_onnx
from export.precision.ranges import RangeReport
from export.precision.session import EmulatedSession
from export.tracing import GraphShape
from model.checkpoint import SpecOptions
from model.spec import ModelSpec
from runtime.compare.agreement import TRUTH_SCORE, agreement_ap
from runtime.compare.coco_ap import evaluate
from runtime.compare.half_limits import HALF_LIMITS, check_half_run
from runtime.compare.matching import HasDetections, compare
from runtime.console import Bar
from runtime.formats.coco import rows as coco_rows
from runtime.predictor import Predictor
from runtime.sources.photos import decode

SHORT, LONG = 320, 533
CANVASES = ((320, 544), (544, 320))
PRECISIONS = ("fp32", "fp16", "bf16")
# What the rounding of every layer's output gave when the project was planned, less some room.
AIMS = {"fp32": 99.99, "fp16": 99.5, "bf16": 94.0}
Canvas = tuple[int, int] | None


@dataclass(slots=True)
class Row:
    """One precision in one lowering on one set of photos."""

    lowering: str
    precision: str
    photos: str
    eager: list[HasDetections] = field(default_factory=list)
    found: list[HasDetections] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ap: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def agreement(self) -> tuple[float, float, float, float]:
        """Box AP and AP50, mask AP and AP50, in points."""
        agreed = agreement_ap(self.eager, self.found)
        assert agreed.mask is not None
        kinds = (agreed.box, agreed.mask)
        return tuple(100 * n for kind in kinds for n in (kind.ap, kind.ap50))  # type: ignore[return-value]


class Lowered:
    """The files of one lowering, and the eager models that they are compared with."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.canvases: tuple[Canvas, ...] = CANVASES if name == "native" else (None,)
        checkpoint = photos.load_fitted(SHORT, LONG)
        model = photos.torchvision_model(checkpoint)
        self.eager = {c: TorchvisionEager(checkpoint, c, model) for c in self.canvases}
        self.emulated: dict[tuple[str, Canvas], EmulatedSession] = {}
        self.predictors: dict[tuple[str, Canvas], Predictor] = {}
        self.size_mb: dict[str, float] = {}
        for precision in PRECISIONS:
            for canvas in self.canvases:
                self._open(precision, canvas, folder)

    def _open(self, precision: str, canvas: Canvas, folder: Path) -> None:
        path = folder / f"{self.name}.{canvas}.{precision}.onnx"
        shape = GraphShape() if canvas is None else GraphShape(1, *canvas)
        export_onnx(
            photos.fitted_weights(),
            path,
            SpecOptions(short_side=SHORT, long_side=LONG),
            shape,
            check_photo=None,
            target="onnxruntime" if canvas is None else "tensorrt-rtx",
            precision=precision,
        )
        self.size_mb[precision] = path.stat().st_size / 1e6
        key = precision, canvas
        if precision == "fp32":
            self.predictors[key] = Predictor.open(path, on_inexact="ignore")
        else:
            # Noting ranges takes a third of the time; BF16's range is float32's.
            self.emulated[key] = EmulatedSession(path, ranges=precision == "fp16")
            self.predictors[key] = Predictor(self.emulated[key], on_inexact="ignore")

    def canvas_of(self, pixels: npt.NDArray[np.uint8]) -> Canvas:
        """The canvas that a photo goes on."""
        if len(self.canvases) == 1:
            return self.canvases[0]
        return self.canvases[0 if pixels.shape[1] >= pixels.shape[0] else 1]


def main() -> int:
    """Run every row; status 1 when one is not what it should be."""
    args = _arguments()
    sets = {"val2017": photos.val_photos(), "fitted": photos.fitted_photos()}
    rows: list[Row] = []
    ranges: dict[str, list[RangeReport]] = {}
    sizes: dict[str, Mapping[str, float]] = {}
    for lowering in args.lowering or ("standard", "native"):
        with tempfile.TemporaryDirectory() as folder:
            lowered = Lowered(lowering, Path(folder))
            for name, files in sets.items():
                rows += _run(lowered, name, files[: args.photos])
            sizes[lowering] = lowered.size_mb
            for (precision, _), session in lowered.emulated.items():
                if precision == "fp16":
                    ranges.setdefault(f"{lowering} {precision}", []).append(session.ranges)
    _report(rows, ranges, sizes, args)
    overflowed = any(report.overflowed for reports in ranges.values() for report in reports)
    return 0 if all(_passed(row) for row in rows) and not overflowed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, help="only so many photos per set")
    parser.add_argument("--lowering", action="append", choices=("standard", "native"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _run(lowered: Lowered, name: str, files: Sequence[Path]) -> list[Row]:
    rows = {p: Row(lowered.name, p, name) for p in PRECISIONS}
    bar = Bar(len(files), f"photos, {lowered.name}")
    for file in files:
        pixels = decode(file)
        canvas = lowered.canvas_of(pixels)
        reference = lowered.eager[canvas].run(pixels).detections
        for precision, row in rows.items():
            started = time.perf_counter()
            found = lowered.predictors[precision, canvas].predict(pixels)
            row.seconds += time.perf_counter() - started
            row.eager.append(reference)
            row.found.append(found)
            row.names.append(file.name)
        bar.advance()
    if name == "fitted":
        spec = photos.load_fitted(SHORT, LONG).spec
        for row in rows.values():
            row.ap = _coco_ap(row, spec)
    return list(rows.values())


def _coco_ap(row: Row, spec: ModelSpec) -> dict[str, tuple[float, float]]:
    """COCO AP of the candidate and its change, in points."""
    truth_file = photos.data_folder() / "coco" / "annotations" / "instances_train2017.json"
    truth = json.loads(truth_file.read_text("utf-8"))
    ids = [int(Path(name).stem) for name in row.names]

    def score(side: Sequence[HasDetections], kind: str) -> float:
        found = [
            dict(result)
            for detections, image_id in zip(side, ids, strict=True)
            for result in coco_rows(detections, image_id, spec.classes)  # type: ignore[arg-type]
        ]
        return 100 * evaluate(truth, found, kind, ids).ap  # type: ignore[arg-type]

    return {
        kind: (score(row.found, kind), score(row.found, kind) - score(row.eager, kind))
        for kind in ("bbox", "segm")
    }


def _passed(row: Row) -> bool:
    return row.photos != "val2017" or row.agreement[0] >= AIMS[row.precision]


def _report(
    rows: list[Row],
    ranges: Mapping[str, list[RangeReport]],
    sizes: Mapping[str, Mapping[str, float]],
    args: argparse.Namespace,
) -> None:
    columns = (
        "lowering", "precision", "photos", "eager rows", "box AP", "box AP50", "mask AP",
        "mask AP50", "COCO box AP", "COCO mask AP", "repeated", "worst photo", "s/photo", "MB",
    )  # fmt: skip
    cells = [_cells(row, sizes) for row in rows]
    lines = [f"- {name}: {report}" for name, reports in ranges.items() for report in reports[:1]]
    overflows = [
        f"- {name}: {tensor}"
        for name, reports in ranges.items()
        for report in reports
        for tensor in report.overflowed
    ]
    body = "\n\n".join(
        [
            results.table(columns, cells),
            f"Box AP to mask AP50: agreement with the eager model's rows of score "
            f"{TRUTH_SCORE} and more. `repeated` and `worst photo`: the measure of an export's "
            "check (`runtime/compare/half_limits.py`), over all photos and of the worst one.",
            "Ranges (landscape canvas):\n\n" + "\n".join(lines),
            "Overflows: " + ("none" if not overflows else "\n\n" + "\n".join(overflows)),
        ]
    )
    data = {
        "rows": [dict(zip(columns, row, strict=True)) for row in cells],
        "ranges": {name: [str(r) for r in reports] for name, reports in ranges.items()},
        "overflows": overflows,
    }
    title = "Half precision under emulation against torchvision's eager model"
    results.write(title, body, data, args.json, args.markdown)


def _cells(row: Row, sizes: Mapping[str, Mapping[str, float]]) -> list[str]:
    confident = sum(int((e.scores >= TRUTH_SCORE).sum()) for e in row.eager)
    ap = [f"{value:.2f} ({change:+.2f})" for value, change in row.ap.values()] or ["", ""]
    limits = HALF_LIMITS["bf16" if row.precision == "bf16" else "fp16"]
    pairs = zip(row.eager, row.found, row.names, strict=True)
    compared = [compare(eager, found, name) for eager, found, name in pairs]
    shares = [check_half_run([c], limits).share for c in compared]
    return [
        row.lowering,
        row.precision,
        f"{len(row.names)} of {row.photos}",
        str(confident),
        *(f"{value:.2f}" for value in row.agreement),
        *ap,
        f"{100 * check_half_run(compared, limits).share:.1f} %",
        f"{100 * min(shares):.1f} %",
        f"{row.seconds / len(row.names):.1f}",
        f"{sizes[row.lowering][row.precision]:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
