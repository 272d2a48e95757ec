"""How much rounding alone changes a model's results, and limits that allow for it.

The limits of `runtime.compare.limits` were measured on trained networks. Other weights may amplify
the same rounding: the eager run differs from itself, with another convolution library or in
float64, by more than those limits. A file may then differ by three times that noise, but never by
more than a framework is known to differ from itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from runtime.compare.limits import FP32_ONNX, Limit, Limits
from runtime.compare.matching import Comparison

_NOISE_FACTOR = 3.0
# The limits of detectron2's recorded outputs; it differs from itself by 2.6e-4 in score, 0.017 px
# and 5.1e-3 in mask probability.
_MAX_SCORE, _MAX_BOX_PX, _MAX_MASK_PROBABILITY, _MIN_MASK_IOU = 1e-3, 0.05, 1e-2, 0.99
_MAX_LOGIT, _MAX_EDGE = 1e-2, 1e-3
_MAX_KEYPOINT_SCORE, _MAX_KEYPOINT_FRACTION = 2e-2, 1e-2
_NEAR_TIES_PER_PHOTO = 5.0


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
    """The largest of each quantity over several measurements."""
    return Noise(*(max(values) for values in zip(*map(astuple, noises), strict=True)))


def measure(comparison: Comparison) -> Noise:
    """Differences between two eager runs of one photo; zeros where no row matched."""
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
    """Limits for a model with this noise, never below the given ones."""
    eps = limits.epsilons
    edge = _wider(eps.edge_relative, noise.edge_relative, _MAX_EDGE)
    growth = edge.value / eps.edge_relative.value
    mask = _wider(eps.mask_probability, noise.mask_probability, _MAX_MASK_PROBABILITY)
    logit = _wider(eps.score_logit, noise.score_logit, _MAX_LOGIT)
    factor = max(growth, logit.value / eps.score_logit.value)
    is_wide = mask.value > eps.mask_probability.value or growth > 1
    box_px = _wider(limits.box_px, noise.box_px, _MAX_BOX_PX)
    return replace(
        limits,
        name=f"{limits.name}, for a model with rounding noise of {noise}",
        score=_wider(limits.score, noise.score, _MAX_SCORE),
        box_px=box_px,
        mask_iou=replace(limits.mask_iou, value=_MIN_MASK_IOU) if is_wide else limits.mask_iou,
        # One photo has few rows: a fraction of them is less than the near ties that it may have.
        near_tie_floor=replace(limits.near_tie_floor, value=_NEAR_TIES_PER_PHOTO),
        keypoint_px=replace(limits.keypoint_px, value=max(limits.keypoint_px.value, box_px.value)),
        keypoint_score=_times(limits.keypoint_score, factor, _MAX_KEYPOINT_SCORE),
        keypoint_fraction=_times(limits.keypoint_fraction, factor, _MAX_KEYPOINT_FRACTION),
        epsilons=replace(
            eps,
            score_logit=logit,
            keypoint_logit=_times(eps.keypoint_logit, factor, _MAX_LOGIT),
            edge_relative=edge,
            # The noise of IoUs grows with that of edges.
            nms_iou=replace(eps.nms_iou, value=eps.nms_iou.value * growth),
            mask_probability=mask,
        ),
    )


def _times(limit: Limit, factor: float, upper: float) -> Limit:
    """The noise of heat maps grows with that of scores and boxes."""
    return replace(limit, value=max(limit.value, min(limit.value * factor, upper)))


def _wider(limit: Limit, noise: float, upper: float) -> Limit:
    value = max(limit.value, min(_NOISE_FACTOR * noise, upper))
    if value == limit.value:
        return limit
    reason = f"{_NOISE_FACTOR:g} times the difference of this model's own eager runs, {noise:.2g}"
    return Limit(limit.name, value, f"{reason}, at most {upper:g}")


# For outputs that a framework recorded with other convolutions on another processor.
RECORDED = replace(
    widened(FP32_ONNX, Noise(np.inf, np.inf, np.inf, np.inf, np.inf)), name="recorded outputs"
)
