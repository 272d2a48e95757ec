"""Limits for files in half precision: how many of the eager detections they must reproduce.

The limits of float32 compare numbers, to 5e-5 in score. Half precision rounds every activation:
scores move by hundredths, and two boxes of nearly equal score may swap ranks in NMS, which
replaces one by the other. Near ties cannot explain that, because every decision is within the
noise. So rows are compared loosely, and a fraction of them may differ.

Agreement AP over many photos is the finer measure (docs/precision.md); one photo is too few for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.errors import UsageError
from runtime.compare.limits import Limit
from runtime.compare.matching import Comparison, box_iou

# The eager model is unsure of rows below this score; a photo with few others counts its best rows.
_MIN_SCORE, _MIN_ROWS = 0.3, 20


@dataclass(frozen=True, slots=True)
class HalfLimits:
    """Limits of a reproduced row, and how many rows must be reproduced."""

    name: str
    box_iou: Limit
    mask_iou: Limit
    score: Limit
    keypoint_relative: Limit
    keypoint_fraction: Limit
    reproduced_fraction: Limit
    missed_floor: Limit


_MEASURED = "fitted R50-FPN at 320/533, eager rows of score 0.3 and more on val2017 photos: "
_FLOOR_REASON = "a fraction of few rows would be less than one"

_FP16 = HalfLimits(
    name="fp16",
    box_iou=Limit(
        "box IoU", 0.75, _MEASURED + "FP16 moved 3 of 130 boxes below 0.9, BF16 one in eight"
    ),
    mask_iou=Limit("mask IoU", 0.5, "as boxes; small masks move more"),
    score=Limit("score", 0.15, _MEASURED + "it moved by up to 0.05, 0.10 on another model"),
    keypoint_relative=Limit("keypoint over longer side", 0.05, "visible in a picture"),
    keypoint_fraction=Limit("fraction of a row's keypoints", 0.5, "keypoints on flat maps jump"),
    reproduced_fraction=Limit("reproduced rows / rows", 0.9, "0 for a broken layer"),
    missed_floor=Limit("missed rows of a small run", 2, _FLOOR_REASON),
)
_BF16 = replace(
    _FP16,
    name="bf16",
    score=Limit("score", 0.3, _MEASURED + "it moved by up to 0.28"),
    reproduced_fraction=Limit(
        "reproduced rows / rows", 0.7, "eight times the rounding of FP16; see docs/precision"
    ),
    missed_floor=Limit("missed rows of a small run", 3, _FLOOR_REASON),
)
HALF_LIMITS = {limits.name: limits for limits in (_FP16, _BF16)}


@dataclass(frozen=True, slots=True)
class HalfVerdict:
    """How many of the eager model's rows are reproduced, and whether that is enough."""

    limits: HalfLimits
    rows: int
    reproduced: int

    @property
    def fraction(self) -> float:
        """Reproduced rows over all; 1 where there are none."""
        return self.reproduced / self.rows if self.rows else 1.0

    @property
    def passed(self) -> bool:
        """Whether few enough are missed."""
        missed, limits = self.rows - self.reproduced, self.limits
        is_enough = self.reproduced >= limits.reproduced_fraction.value * self.rows
        return is_enough or missed <= limits.missed_floor.value

    def __str__(self) -> str:
        limits = self.limits
        return (
            f"{self.reproduced} of {self.rows} eager detections reproduced (box IoU "
            f"{limits.box_iou.value}, mask IoU {limits.mask_iou.value}, score within "
            f"{limits.score.value}; at least {100 * limits.reproduced_fraction.value:.0f} %)"
        )


def check_half_run(comparisons: Sequence[Comparison], limits: HalfLimits) -> HalfVerdict:
    """Count the eager rows that are reproduced, over one or more images.

    Counted are rows with a score of at least 0.3, and in any case an image's best 20.

    Raises:
        UsageError: there is nothing to check.
    """
    if not comparisons:
        raise UsageError("check: expected at least one image, got none")
    rows = reproduced = 0
    for comparison in comparisons:
        scores = comparison.reference.scores
        counted = scores >= _MIN_SCORE
        counted[np.argsort(-scores, kind="stable")[:_MIN_ROWS]] = True
        paired = comparison.matching.pairs[:, 0]
        rows += int(counted.sum())
        reproduced += int((counted[paired] & _is_reproduced(comparison, limits)).sum())
    return HalfVerdict(limits, rows, reproduced)


def _is_reproduced(comparison: Comparison, limits: HalfLimits) -> NDArray[np.bool_]:
    """Bool [P]; a NaN counts as not reproduced."""
    reference, candidate = comparison.matching.pairs.T
    boxes = comparison.reference.boxes[reference]
    # Row by row; `box_iou` compares all with all.
    iou = np.array(
        [
            box_iou(a[None], b[None])[0, 0]
            for a, b in zip(boxes, comparison.candidate.boxes[candidate], strict=True)
        ]
    )
    good = (iou >= limits.box_iou.value) & (comparison.score_diff <= limits.score.value)
    if comparison.mask_iou is not None:
        good &= comparison.mask_iou >= limits.mask_iou.value
    if comparison.keypoint_diff_px is not None:
        longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        near = comparison.keypoint_diff_px <= limits.keypoint_relative.value * longer[:, None]
        good &= near.mean(axis=1) >= limits.keypoint_fraction.value
    return np.asarray(good)
