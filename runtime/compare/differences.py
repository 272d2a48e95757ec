"""The differences of matched rows, by quantity: what statistics of a comparison are taken of.

Module legend: P matched rows, J keypoints; a quantity of keypoints has P x J values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.arrays import Float64, Int64
from runtime.compare.matching import Comparison

# Rounding moves a box by far less: such a pair is one row lost and another one gained.
_MOVED_FRACTION = 0.1
# A softmax is a quotient of a rounded exponential and a rounded sum.
_SCORE_STEPS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """One quantity: float64 [N] differences, and the labels of their rows, int64 [N]."""

    values: Float64
    labels: Int64

    def quantile(self, fraction: float) -> float:
        """The largest value that at most this fraction of the others is below; 0 for no rows.

        Up to 100 rows, 0.99 is the second largest: one row alone does not decide it.
        """
        if not self.values.size:
            return 0.0
        return float(np.quantile(self.values, fraction, method="lower"))

    def of_label(self, label: int) -> Differences:
        """The rows of one class."""
        return Differences(self.values[self.labels == label], self.labels[self.labels == label])


def differences(
    comparisons: Sequence[Comparison], skipped: Collection[tuple[str, int]] = ()
) -> Mapping[str, Differences]:
    """Collect the differences of all matched rows by quantity.

    Quantities: `score` (probabilities), `score_logit`, `box_px` (original-image pixels),
    `edge_relative` (over the box's longer side), `mask_probability`, `keypoint_px` and
    `keypoint_score`; only those that a comparison has.

    Args:
        comparisons: of one run with another.
        skipped: image and reference row of pairs that are left out. Pairs whose boxes moved by a
            tenth of their size are left out as well.
    """
    parts: dict[str, list[Differences]] = {}
    for comparison in comparisons:
        rows = comparison.matching.pairs[:, 0]
        edges = _edges(comparison)
        kept = ~(edges > _MOVED_FRACTION)
        kept &= np.array([(comparison.image, row) not in skipped for row in rows.tolist()], bool)
        values = {
            "score": comparison.score_diff,
            "score_logit": _logits(comparison),
            "box_px": comparison.box_diff_px,
            "edge_relative": edges,
            "mask_probability": comparison.mask_prob_diff,
            "keypoint_px": comparison.keypoint_diff_px,
            "keypoint_score": comparison.keypoint_score_diff,
        }
        labels = comparison.reference.labels[rows[kept]]
        for name, array in values.items():
            if array is not None:
                per_row = array.shape[1] if array.ndim > 1 else 1
                flat = Differences(array[kept].ravel(), np.repeat(labels, per_row))
                parts.setdefault(name, []).append(flat)
    return {
        name: Differences(
            np.concatenate([part.values for part in of_name]),
            np.concatenate([part.labels for part in of_name]),
        )
        for name, of_name in parts.items()
    }


def _edges(comparison: Comparison) -> Float64:
    boxes = comparison.reference.boxes[comparison.matching.pairs[:, 0]].astype(np.float64)
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=1e-6)
    relative: Float64 = comparison.box_diff_px / longer
    return relative


def _logits(comparison: Comparison) -> Float64:
    """Differences of logits beyond what float32 probabilities resolve.

    Near 1 a step of float32 is a large step of the logit.
    """
    rows, columns = comparison.matching.pairs.T
    sides = ((comparison.reference, rows), (comparison.candidate, columns))
    scores = [s.scores[index].astype(np.float64).clip(1e-12, 1 - 1e-7) for s, index in sides]
    first, second = (np.log(p) - np.log1p(-p) for p in scores)
    nearest = np.maximum(*scores)
    steps = _SCORE_STEPS * np.spacing(nearest.astype(np.float32)).astype(np.float64)
    resolution = steps / (nearest * (1.0 - nearest))
    difference: Float64 = (np.abs(first - second) - resolution).clip(0.0)
    return difference
