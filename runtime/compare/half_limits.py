"""What a file in half precision is held to: how much of the eager answer it repeats.

The limits of float32 compare numbers, to 5e-5 in score. Half precision rounds every activation:
scores move by hundredths, and two boxes of nearly equal score may swap places in NMS, which
replaces one by the other. No witness excuses that, for every decision stands within its noise.
So rows are compared loosely, and a share of them may differ.

Agreement AP over many photos is the finer measure (docs/precision.md); one photo is too few for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import UsageError
from runtime.compare.limits import Limit
from runtime.compare.matching import Comparison, box_iou

# Below it the eager model itself is unsure; a photo that shows little is judged by its best rows.
_SURE, _AT_LEAST = 0.3, 20


@dataclass(frozen=True, slots=True)
class HalfLimits:
    """When a row is repeated, and how many must be."""

    name: str
    box_iou: Limit
    mask_iou: Limit
    score: Limit
    keypoint_relative: Limit
    keypoint_share: Limit
    repeated_share: Limit
    missed_floor: Limit


_SEEN = "fitted R50-FPN at 320/533, eager rows of score 0.3 and more on val2017 photos: "
_BOX = Limit("box IoU", 0.75, _SEEN + "FP16 moved 3 of 130 boxes below 0.9, BF16 one in eight")
_MASK = Limit("mask IoU", 0.5, "as boxes; small masks move more")
_KEYPOINT = Limit("keypoint over longer side", 0.05, "what a person sees on a picture")
_KEYPOINTS = Limit("share of a row's keypoints", 0.5, "unsure ones sit on flat maps and jump")
_FLOOR_REASON = "of few rows a share would be less than one"

HALF_LIMITS = {
    limits.name: limits
    for limits in (
        HalfLimits(
            name="fp16",
            box_iou=_BOX,
            mask_iou=_MASK,
            score=Limit("score", 0.15, _SEEN + "it moved by up to 0.05, 0.10 on another model"),
            keypoint_relative=_KEYPOINT,
            keypoint_share=_KEYPOINTS,
            repeated_share=Limit("repeated rows / rows", 0.9, "a broken layer repeats none"),
            missed_floor=Limit("missed rows of a small run", 2, _FLOOR_REASON),
        ),
        HalfLimits(
            name="bf16",
            box_iou=_BOX,
            mask_iou=_MASK,
            score=Limit("score", 0.3, _SEEN + "it moved by up to 0.28"),
            keypoint_relative=_KEYPOINT,
            keypoint_share=_KEYPOINTS,
            repeated_share=Limit(
                "repeated rows / rows", 0.7, "eight times the rounding of FP16; see docs/precision"
            ),
            missed_floor=Limit("missed rows of a small run", 3, _FLOOR_REASON),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class HalfVerdict:
    """How many of the eager model's rows are repeated, and whether that is enough."""

    limits: HalfLimits
    rows: int
    repeated: int

    @property
    def share(self) -> float:
        """Repeated rows over all; 1 where there is none."""
        return self.repeated / self.rows if self.rows else 1.0

    @property
    def passed(self) -> bool:
        """Whether few enough are missed."""
        missed, limits = self.rows - self.repeated, self.limits
        is_share = self.repeated >= limits.repeated_share.value * self.rows
        return is_share or missed <= limits.missed_floor.value

    def __str__(self) -> str:
        limits = self.limits
        return (
            f"{self.repeated} of {self.rows} eager detections repeated (box IoU "
            f"{limits.box_iou.value}, mask IoU {limits.mask_iou.value}, score within "
            f"{limits.score.value}; at least {100 * limits.repeated_share.value:.0f} %)"
        )


def check_half_run(comparisons: Sequence[Comparison], limits: HalfLimits) -> HalfVerdict:
    """Count the eager rows that are repeated, over one or more images.

    Judged are rows of score 0.3 and more, and an image's best 20 in any case.

    Raises:
        UsageError: there is nothing to judge.
    """
    if not comparisons:
        raise UsageError("check: expected at least one image, got none")
    rows = repeated = 0
    for comparison in comparisons:
        scores = comparison.reference.scores
        judged = scores >= _SURE
        judged[np.argsort(-scores, kind="stable")[:_AT_LEAST]] = True
        paired = comparison.matching.pairs[:, 0]
        rows += int(judged.sum())
        repeated += int((judged[paired] & _is_repeated(comparison, limits)).sum())
    return HalfVerdict(limits, rows, repeated)


def _is_repeated(comparison: Comparison, limits: HalfLimits) -> NDArray[np.bool_]:
    """Bool [P]; written so that a NaN is no repetition."""
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
        good &= near.mean(axis=1) >= limits.keypoint_share.value
    return np.asarray(good)
