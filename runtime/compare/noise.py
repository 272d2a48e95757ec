"""How much rounding alone moves a model's results, and limits that allow for it.

The limits of `runtime.compare.limits` were measured on trained networks. One with wilder weights
makes more of the same rounding: its eager run differs from itself, with another convolution
library or in float64, by more than those limits. What a file may differ by is then three times
that, and never more than what a framework is known to differ from itself by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from runtime.compare.limits import FP32_ONNX, Limit, Limits
from runtime.compare.matching import Comparison

_TIMES = 3.0
# What detectron2's recorded outputs are held to; it differs from itself by 2.6e-4 in score,
# 0.017 px and 5.1e-3 in mask probability.
_MOST_SCORE, _MOST_BOX_PX, _MOST_MASK_PROBABILITY, _LEAST_MASK_IOU = 1e-3, 0.05, 1e-2, 0.99
_MOST_LOGIT, _MOST_EDGE = 1e-2, 1e-3
_MOST_KEYPOINT_SCORE, _MOST_KEYPOINT_SHARE = 2e-2, 1e-2
_WITNESSED_ON_A_PHOTO = 5.0


@dataclass(frozen=True, slots=True)
class Noise:
    """The largest differences over the matched rows of two runs of one model.

    score and mask_probability are probabilities, score_logit is in logits, box_px in
    original-image pixels, edge_relative in the box's longer side.
    """

    score: float
    score_logit: float
    box_px: float
    edge_relative: float
    mask_probability: float

    def __str__(self) -> str:
        return (
            f"score {self.score:.1e}, box {self.box_px:.4f} px, mask probability "
            f"{self.mask_probability:.1e}"
        )


def largest(noises: Sequence[Noise]) -> Noise:
    """Of several measurements, the largest of each quantity."""
    return Noise(*(max(values) for values in zip(*map(astuple, noises), strict=True)))


def measure(comparison: Comparison) -> Noise:
    """What moved between two eager runs of one photo; zeros where no row matched."""
    rows, columns = comparison.matching.pairs.T
    reference, candidate = comparison.reference, comparison.candidate
    logits = [
        np.log(scores) - np.log1p(-scores)
        for scores in (
            side.scores[index].astype(np.float64).clip(1e-12, 1 - 1e-7)
            for side, index in ((reference, rows), (candidate, columns))
        )
    ]
    boxes = reference.boxes[rows].astype(np.float64)
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=1e-6)
    probabilities = comparison.mask_prob_diff
    return Noise(
        score=float(comparison.score_diff.max(initial=0.0)),
        score_logit=float(np.abs(logits[0] - logits[1]).max(initial=0.0)),
        box_px=float(comparison.box_diff_px.max(initial=0.0)),
        edge_relative=float((comparison.box_diff_px / longer).max(initial=0.0)),
        mask_probability=0.0 if probabilities is None else float(probabilities.max(initial=0.0)),
    )


def widened(limits: Limits, noise: Noise) -> Limits:
    """Limits for a model that rounding moves so much; never narrower than they were."""
    eps = limits.epsilons
    edge = _wider(eps.edge_relative, noise.edge_relative, _MOST_EDGE)
    growth = edge.value / eps.edge_relative.value
    mask = _wider(eps.mask_probability, noise.mask_probability, _MOST_MASK_PROBABILITY)
    logit = _wider(eps.score_logit, noise.score_logit, _MOST_LOGIT)
    loudness = max(growth, logit.value / eps.score_logit.value)
    is_wide = mask.value > eps.mask_probability.value or growth > 1
    box_px = _wider(limits.box_px, noise.box_px, _MOST_BOX_PX)
    return replace(
        limits,
        name=f"{limits.name}, for a model that rounding moves by {noise}",
        score=_wider(limits.score, noise.score, _MOST_SCORE),
        box_px=box_px,
        mask_iou=replace(limits.mask_iou, value=_LEAST_MASK_IOU) if is_wide else limits.mask_iou,
        # One photo has few rows: a share of them is less than the near ties that it may hold.
        witnessed_floor=replace(limits.witnessed_floor, value=_WITNESSED_ON_A_PHOTO),
        keypoint_px=replace(limits.keypoint_px, value=max(limits.keypoint_px.value, box_px.value)),
        keypoint_score=_times(limits.keypoint_score, loudness, _MOST_KEYPOINT_SCORE),
        keypoint_share=_times(limits.keypoint_share, loudness, _MOST_KEYPOINT_SHARE),
        epsilons=replace(
            eps,
            score_logit=logit,
            keypoint_logit=_times(eps.keypoint_logit, loudness, _MOST_LOGIT),
            edge_relative=edge,
            # IoUs move as the edges do that they are made of.
            nms_iou=replace(eps.nms_iou, value=eps.nms_iou.value * growth),
            mask_probability=mask,
        ),
    )


def _times(limit: Limit, loudness: float, most: float) -> Limit:
    """Heat maps are as loud as scores and boxes are."""
    return replace(limit, value=max(limit.value, min(limit.value * loudness, most)))


def _wider(limit: Limit, noise: float, most: float) -> Limit:
    value = max(limit.value, min(_TIMES * noise, most))
    if value == limit.value:
        return limit
    reason = f"{_TIMES:g} times what this model's own eager runs differ by, {noise:.2g}"
    return Limit(limit.name, value, f"{reason}, at most {most:g}")


# For outputs that a framework recorded elsewhere: other convolutions, another processor.
RECORDED = replace(
    widened(FP32_ONNX, Noise(np.inf, np.inf, np.inf, np.inf, np.inf)), name="recorded outputs"
)
