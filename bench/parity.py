"""Our eager network and the exported ONNX file against torchvision's `maskrcnn_resnet50_fpn`.

All val2017 photos and the fitted ones at 320/533, ten at 800/1333; COCO AP on the fitted ones.
`--corrupt` is the negative control: one result is changed and the command must fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos, results
from export.onnx import export_onnx
from export.parity.torchvision_reference import EagerRun, TorchvisionEager
from model.checkpoint import Checkpoint, SpecOptions
from model.spec import ModelSpec
from runtime.cli.console import Bar
from runtime.compare.attribution import explain
from runtime.compare.coco_ap import ApResult, evaluate
from runtime.compare.limits import Verdict, check
from runtime.compare.matching import Comparison, compare
from runtime.compare.result_protocol import DetectionResult
from runtime.detections import Detections
from runtime.formats.coco import rows_by_class
from runtime.predictor import Predictor
from runtime.sessions.torch import TorchSession
from runtime.sources.photos import decode

CORRUPTIONS = ("box", "class", "row")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A runtime that is compared with torchvision."""

    name: str
    predictor: Predictor


@dataclass(frozen=True, slots=True)
class Outcome:
    """One candidate on one set of photos."""

    title: str
    verdict: Verdict
    ap: dict[str, tuple[float, float]]
    refused: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Within the limits, AP equal to two decimals of a hundred, every control refused."""
        same_ap = all(f"{100 * a:.2f}" == f"{100 * b:.2f}" for a, b in self.ap.values())
        return self.verdict.passed and same_ap and self.refused == CORRUPTIONS


def main() -> int:
    """Run every row; status 1 when one is beyond the limits."""
    args = _arguments()
    outcomes: list[Outcome] = []
    for short, long, files, with_ap in _plan(args.photos):
        checkpoint = photos.load_fitted(short, long)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            options = SpecOptions(short_side=short, long_side=long)
            export_onnx(checkpoint.path, path, options, check_photo=None)
            candidates = [
                Candidate("MaskRCNN, eager", Predictor(TorchSession(checkpoint))),
                Candidate("ONNX in ONNX Runtime", Predictor.open(path)),
            ]
            outcomes += _compare(checkpoint, candidates, files, with_ap, args.corrupt)
    _report(outcomes, args)
    return 0 if all(o.passed for o in outcomes) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, help="only so many photos per set")
    parser.add_argument("--corrupt", choices=CORRUPTIONS, help="negative control")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _plan(limit: int | None) -> list[tuple[int, int, list[Path], bool]]:
    small = [
        (320, 533, photos.val_photos()[:limit], False),
        (320, 533, photos.fitted_photos()[:limit], True),
    ]
    return [*small, (800, 1333, photos.val_photos()[: min(10, limit or 10)], False)]


def _compare(
    checkpoint: Checkpoint,
    candidates: list[Candidate],
    files: list[Path],
    with_ap: bool,
    corrupt: str | None,
) -> list[Outcome]:
    eager = TorchvisionEager(checkpoint, model=photos.torchvision_model(checkpoint))
    runs: dict[str, EagerRun] = {}
    compared: dict[str, list[Comparison]] = {c.name: [] for c in candidates}
    bar = Bar(len(files), "photos")
    for index, file in enumerate(files):
        pixels = decode(file)
        runs[file.name] = run = eager.run(pixels)
        for candidate in candidates:
            detections = candidate.predictor.predict(pixels)
            if corrupt is not None and index == 0:
                detections = _corrupted(detections, corrupt)
            compared[candidate.name].append(compare(run.detections, detections, file.name))
        bar.advance()
    pre = checkpoint.spec.preprocess
    where = f"{len(files)} photos of {files[0].parent.name} at {pre.short_side}/{pre.long_side}"
    return [
        Outcome(
            f"{name}, {where}",
            explain(check(rows), rows, lambda image: runs[image].trace),
            _ap(rows, checkpoint.spec) if with_ap else {},
            _refused(rows[0], runs),
        )
        for name, rows in compared.items()
    ]


def _refused(row: Comparison, runs: dict[str, EagerRun]) -> tuple[str, ...]:
    """The negative controls that are refused: the first photo with each corruption in turn."""
    detections = row.candidate
    assert isinstance(detections, Detections)
    refused = []
    for how in CORRUPTIONS:
        wrong = compare(row.reference, _corrupted(detections, how), row.image)
        verdict = explain(check([wrong]), [wrong], lambda image: runs[image].trace)
        if not verdict.passed:
            refused.append(how)
    return tuple(refused)


def _corrupted(result: Detections, how: str) -> Detections:
    """Negative control: shift one box, swap one class, or drop one row."""
    if how == "row":
        keep = np.arange(1, len(result))
        probabilities = None if result.mask_probs is None else result.mask_probs[keep]
        return replace(
            result,
            boxes=result.boxes[keep],
            scores=result.scores[keep],
            labels=result.labels[keep],
            names=result.names[1:],
            mask_probs=probabilities,
            keypoints=None if result.keypoints is None else result.keypoints[keep],
        )
    if how == "class":
        labels = result.labels.copy()
        labels[0] = labels[0] % 90 + 1
        return replace(result, labels=labels)
    boxes = result.boxes.copy()
    boxes[0] += 0.5
    return replace(result, boxes=boxes)


def _ap(rows: list[Comparison], spec: ModelSpec) -> dict[str, tuple[float, float]]:
    """Box and mask AP of torchvision and of the candidate on labelled photos."""
    truth_file = photos.data_folder() / "coco" / "annotations" / "instances_train2017.json"
    truth = json.loads(truth_file.read_text("utf-8"))
    ids = [int(Path(row.image).stem) for row in rows]

    def score(pick: Callable[[Comparison], DetectionResult], iou_type: str) -> float:
        coco_rows = [
            dict(coco_row)
            for row, image_id in zip(rows, ids, strict=True)
            for coco_row in rows_by_class(pick(row), image_id, spec.classes)
        ]
        ap: ApResult = evaluate(truth, coco_rows, iou_type, ids)  # type: ignore[arg-type]
        return ap.ap

    return {
        kind: (score(lambda r: r.reference, kind), score(lambda r: r.candidate, kind))
        for kind in ("bbox", "segm")
    }


def _report(outcomes: list[Outcome], args: argparse.Namespace) -> None:
    columns = (
        "compared", "detections", "equal", "score", "box px", "mask IoU", "near ties",
        "unexplained", "box AP (torchvision)", "mask AP (torchvision)", "controls refused",
        "verdict",
    )  # fmt: skip
    table = results.table(columns, [_row(o) for o in outcomes])
    excesses = [f"- {e}" for o in outcomes for e in o.verdict.excesses]
    body = "\n\n".join(
        [table, *(["Differences beyond the limits:", "\n".join(excesses)] if excesses else [])]
    )
    data = {"rows": [dict(zip(columns, _row(o), strict=True)) for o in outcomes]}
    results.write("Parity with torchvision's eager model", body, data, args.json, args.markdown)


def _row(outcome: Outcome) -> list[str]:
    v = outcome.verdict
    ap = [f"{100 * b:.2f} ({100 * a:.2f})" for a, b in outcome.ap.values()] or ["", ""]
    return [
        outcome.title,
        str(v.detections),
        str(v.equal_detections),
        f"{v.worst_score_diff or 0:.1e}",
        f"{v.worst_box_diff_px or 0:.5f}",
        f"{1 if v.worst_mask_iou is None else v.worst_mask_iou:.5f}",
        str(v.near_tie_rows),
        str(v.unexplained_rows),
        *ap,
        ", ".join(outcome.refused),
        "equal" if outcome.passed else "DIFFERENT",
    ]


if __name__ == "__main__":
    sys.exit(main())
