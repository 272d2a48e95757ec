"""What each kind of error costs in AP50, after TIDE.

Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, 2020, as
hotcoco computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.compare.coco_ap import evaluate
from runtime.compare.coco_evaluators import hotcoco_evaluation, require_evaluator
from runtime.compare.coco_inputs import ImageId, Json, coco_inputs

# The kinds of errors of boxes, with hotcoco's names.
_TIDE = {
    "class": "Cls",
    "location": "Loc",
    "class and location": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
MASK_ONLY = "mask only"


@dataclass(frozen=True, slots=True)
class ErrorCost:
    """One kind of error: the AP50 that it costs, as a fraction of 1, and how often it occurs.

    `count` is None where detections are not counted.
    """

    cost: float
    count: int | None


def error_costs(
    ground_truth: Json,
    results: Iterable[Json],
    image_ids: Sequence[ImageId],
    *,
    with_masks: bool,
    max_detections: int | None = None,
) -> dict[str, ErrorCost]:
    """The cost of each kind of error: AP50 without these errors, less AP50.

    Each detection that matches no object has one kind. By the overlap of its box with the objects
    of its own class and of other classes: "class" (0.5 and more with another class), "location"
    (0.1 to 0.5 with its own), "class and location" (0.1 to 0.5 with another), "duplicate" (of an
    object that a better detection has), "background" (less than 0.1 with any). "missed" are objects
    without any of these. "mask only" is AP50 of the boxes less AP50 of the masks.

    Args:
        ground_truth: as `coco_ap.evaluate`.
        results: rows with `bbox`, and `segmentation` if `with_masks`.
        image_ids: images to score.
        with_masks: whether to add "mask only".
        max_detections: as `coco_ap.evaluate`.

    Raises:
        UsageError: as `coco_ap.evaluate`.
        MissingDependencyError: hotcoco is not installed.
    """
    require_evaluator("hotcoco", "comparing errors needs")
    rows = list(results)
    inputs = coco_inputs(ground_truth, rows, "bbox", image_ids, max_detections)
    errors = hotcoco_evaluation(inputs).tide_errors()
    costs = {
        kind: ErrorCost(float(errors["delta_ap"][name]), int(errors["counts"][name]))
        for kind, name in _TIDE.items()
    }
    if with_masks:
        box, mask = (
            evaluate(ground_truth, rows, kind, image_ids, max_detections=max_detections).ap50
            for kind in ("bbox", "segm")
        )
        costs[MASK_ONLY] = ErrorCost(box - mask, None)
    return costs
