"""COCO average precision: the standard numbers of boxes, masks and keypoints.

pycocotools' own summary takes AP at 100 detections per image whatever the limit is, so the numbers
are taken from the accumulated precision and recall here.

Legend: T IoU thresholds, R recall thresholds, K categories, A area ranges, M detection limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from model.arrays import Float64
from runtime.compare.coco_evaluators import (
    Evaluator,
    accumulate,
    default_evaluator,
    require_pycocotools,
)
from runtime.compare.coco_inputs import ImageId, IouType, Json, coco_inputs

# Indices of IoU 0.50 and 0.75 among 0.50:0.05:0.95.
_IOU_50, _IOU_75 = 0, 5
Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ApResult:
    """COCO's standard numbers, as fractions of 1; -1 where the ground truth has no such object.

    Attributes:
        numbers: by name. Boxes and masks: `ap` (the mean over IoU 0.50:0.95), `ap50`, `ap75`,
            `ap_small`, `ap_medium`, `ap_large`; `ar1`, `ar10` and `ar<max_detections>`, the recall
            with so many detections per image; `ar_small`, `ar_medium`, `ar_large`. Keypoints: `ap`,
            `ap50`, `ap75`, `ap_medium`, `ap_large`, and the same of `ar`.
        max_detections: the limit of detections per image and category.
        by_class: the same numbers by category id, if they were requested.
    """

    numbers: Numbers
    max_detections: int
    by_class: Mapping[int, Numbers] = field(default_factory=dict)

    @property
    def ap(self) -> float:
        """The mean over IoU 0.50:0.95."""
        return self.numbers["ap"]

    @property
    def ap50(self) -> float:
        """AP at an IoU of 0.50."""
        return self.numbers["ap50"]


def evaluate(
    ground_truth: Json,
    results: Iterable[Json],
    iou_type: IouType,
    image_ids: Sequence[ImageId],
    *,
    max_detections: int | None = None,
    sigmas: Sequence[float] = (),
    per_class: bool = False,
    evaluator: Evaluator | None = None,
) -> ApResult:
    """Score results against annotations; neither is changed.

    Args:
        ground_truth: COCO JSON with `images`, `annotations` (including crowds, whose detections
            are ignored) and `categories`.
        results: COCO result rows: `image_id`, `category_id`, `score`, and `bbox` (xywh, pixels),
            `segmentation` (compressed RLE) or `keypoints` (x, y, v, ...), as `iou_type` needs.
        iou_type: overlap of boxes or of masks, or the similarity of keypoints (OKS).
        image_ids: images to score, one or more; results of others are ignored.
        max_detections: per image and category; None takes 20 for keypoints, otherwise the largest
            number of results of one image, at least 100.
        sigmas: falloff of each keypoint in OKS, as fractions of the object's size; needed unless
            there are COCO's 17.
        per_class: also compute the numbers of each category.
        evaluator: None takes hotcoco if it is installed, else pycocotools.

    Raises:
        UsageError: an image of `image_ids` is not in the ground truth, or a row lacks its field.
        MissingDependencyError: pycocotools is not installed.

    Source: COCOeval of pycocotools.
    """
    require_pycocotools()
    inputs = coco_inputs(ground_truth, results, iou_type, image_ids, max_detections, sigmas)
    precision, recall = accumulate(inputs, evaluator or default_evaluator())
    ids = [category["id"] for category in inputs.source_categories]
    return ApResult(
        _numbers(precision, recall, inputs.limits, iou_type),
        inputs.limits[-1],
        {
            ids[k]: _numbers(precision[:, :, [k]], recall[:, [k]], inputs.limits, iou_type)
            for k in (range(len(ids)) if per_class else ())
        },
    )


def _numbers(
    precision: Float64, recall: Float64, limits: Sequence[int], iou_type: IouType
) -> Numbers:
    """The standard numbers from precision [T, R, K, A, M] and recall [T, K, A, M]."""
    # `limits` and the area ranges are those of `coco_inputs`.
    areas = ("medium", "large") if iou_type == "keypoints" else ("small", "medium", "large")
    by_name: dict[str, Float64] = {}
    for name, values in (("ap", precision), ("ar", recall)):
        if name == "ap" or iou_type == "keypoints":
            by_name[name] = values[..., 0, -1]
            by_name[f"{name}50"] = values[_IOU_50, ..., 0, -1]
            by_name[f"{name}75"] = values[_IOU_75, ..., 0, -1]
        else:
            by_name |= {f"ar{limit}": values[..., 0, m] for m, limit in enumerate(limits)}
        by_name |= {f"{name}_{area}": values[..., a, -1] for a, area in enumerate(areas, start=1)}
    return {name: _mean(values) for name, values in by_name.items()}


def _mean(values: Float64) -> float:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else -1.0
