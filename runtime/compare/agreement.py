"""Agreement AP: COCO AP with the eager model's detections as ground truth.

It needs no labels and does not depend on the model's mistakes: an exact copy scores 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from model.errors import UsageError
from runtime.compare.coco_ap import ApResult, evaluate
from runtime.compare.coco_evaluators import require_pycocotools
from runtime.compare.coco_inputs import IouType, areas_px
from runtime.compare.result_protocol import DetectionResult

# Below it the eager model is unsure, and ranks depend on noise.
TRUTH_SCORE = 0.3


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement AP of boxes and of pasted masks; `mask` is None for box-only models."""

    box: ApResult
    mask: ApResult | None


def agreement_ap(
    references: Sequence[DetectionResult],
    candidates: Sequence[DetectionResult],
    truth_score: float = TRUTH_SCORE,
) -> Agreement:
    """Compute COCO AP of all detections of `candidates` against those of `references`.

    Args:
        references: The eager model's results; rows with a score of at least `truth_score` are
            the ground truth.
        candidates: The results to be scored, of the same images in the same order.
        truth_score: Smallest score that counts as true.

    Raises:
        UsageError: The two differ in length or are empty, or only some results have masks.
        MissingDependencyError: pycocotools is not installed.
    """
    if not references or len(references) != len(candidates):
        raise UsageError(
            "agreement: expected as many candidate as reference results and at least one, got "
            f"{len(candidates)} and {len(references)}"
        )
    require_pycocotools()
    with_masks = {result.mask_probs is not None for result in (*references, *candidates)}
    if len(with_masks) > 1:
        raise UsageError(
            "agreement: expected masks in all results or in none, got both; compare results "
            "of the same model"
        )
    return Agreement(
        _agreement(references, candidates, truth_score, "bbox"),
        _agreement(references, candidates, truth_score, "segm") if True in with_masks else None,
    )


def _agreement(
    references: Sequence[DetectionResult],
    candidates: Sequence[DetectionResult],
    truth_score: float,
    iou_type: IouType,
) -> ApResult:
    truth = [row for row in _rows(references, iou_type) if row["score"] >= truth_score]
    areas = areas_px([row[_key(iou_type)] for row in truth], iou_type)
    labels = {int(label) for result in references for label in result.labels}
    ground_truth = {
        "images": [
            {"id": image_id, "height": result.image_hw[0], "width": result.image_hw[1]}
            for image_id, result in enumerate(references)
        ],
        "categories": [{"id": label} for label in sorted(labels)],
        "annotations": [
            {**row, "iscrowd": 0, "area": area} for row, area in zip(truth, areas, strict=True)
        ],
    }
    return evaluate(ground_truth, _rows(candidates, iou_type), iou_type, range(len(references)))


def _rows(results: Sequence[DetectionResult], iou_type: IouType) -> Iterator[dict[str, Any]]:
    """COCO result rows; `category_id` is the label, `image_id` the index in the sequence."""
    for image_id, result in enumerate(results):
        shapes: Sequence[Any] = result.rle() if iou_type == "segm" else _xywh(result)
        for label, score, shape in zip(result.labels, result.scores, shapes, strict=True):
            yield {
                "image_id": image_id,
                "category_id": int(label),
                "score": float(score),
                _key(iou_type): shape,
            }


def _key(iou_type: IouType) -> str:
    return "segmentation" if iou_type == "segm" else "bbox"


def _xywh(result: DetectionResult) -> list[list[float]]:
    return [
        [float(x0), float(y0), float(x1 - x0), float(y1 - y0)] for x0, y0, x1, y1 in result.boxes
    ]
