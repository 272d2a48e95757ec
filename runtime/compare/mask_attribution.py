"""Near ties that explain a pair whose pasted masks differ although score and box agree.

A pasted mask follows from M x M probabilities and a box, so only three decisions can make two masks
differ: a pixel's probability against the threshold, the integer that a paste edge is truncated to,
and the pyramid level of the mask's RoI. The first two are accepted only if they reproduce the
candidate's mask from the reference's probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.arrays import Bool, Float64
from model.spec import MaskHeadSpec, ModelSpec
from runtime.compare.borderline import NearTie, edge_noise, sides_wh
from runtime.compare.limits import Epsilons, Limits
from runtime.compare.matching import Comparison
from runtime.masks.paste import MaskRule, paste_crops

# Rounding of a pasted probability in float32.
_PASTE_ROUNDING = 1e-6


def mask_near_tie(
    pair: int, comparison: Comparison, spec: ModelSpec, level: NearTie | None, limits: Limits
) -> NearTie | None:
    """The near tie that explains the masks of one pair.

    Args:
        pair: Index in the comparison.
        comparison: Both results, with mask probabilities on both sides.
        spec: The eager model.
        level: of the row's mask RoI: its two boxes are at a boundary of two levels.
        limits: The epsilons are used.
    """
    if spec.mask is None or comparison.mask_prob_diff is None:
        return None
    prob_diff = float(comparison.mask_prob_diff[pair])
    if not prob_diff <= limits.epsilons.mask_probability.value:
        return level
    row, column = (int(index) for index in comparison.matching.pairs[pair])
    sides = _Sides.of(comparison, row, column)
    if sides is None:
        return None
    return _pixel_near_tie(sides, prob_diff, spec.mask, limits.epsilons) or _edge_near_tie(
        sides, prob_diff, spec.mask, limits.epsilons
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """One pair, in original-image pixels; the arrays of boxes and probabilities have one row."""

    row: int
    image_hw: tuple[int, int]
    reference_probs: NDArray[np.float32]
    reference_xyxy: NDArray[np.float32]
    candidate_xyxy: NDArray[np.float32]
    candidate_mask: Bool

    @classmethod
    def of(cls, comparison: Comparison, row: int, column: int) -> _Sides | None:
        """None where a side lacks probabilities or masks."""
        reference, candidate = comparison.reference, comparison.candidate
        probs, masks = reference.mask_probs, candidate.masks
        if probs is None or masks is None:
            return None
        return cls(
            row,
            reference.image_hw,
            probs[row : row + 1],
            reference.boxes[row : row + 1],
            candidate.boxes[column : column + 1],
            masks[column],
        )

    @property
    def mask_side(self) -> int:
        """Side of the probabilities, M."""
        return int(self.reference_probs.shape[-1])

    def reproduces(self, box_xyxy: NDArray[np.float32], rule: MaskHeadSpec, margin: float) -> bool:
        """Whether the reference's probabilities give the candidate's mask within `margin`.

        Pasted into `box_xyxy` and cut at the threshold plus and minus `margin`, they must enclose
        the candidate's mask.
        """
        if not 0.0 < rule.threshold - margin < rule.threshold + margin < 1.0:
            return False
        inner, outer = (
            self._pasted(box_xyxy, rule, threshold)
            for threshold in (rule.threshold + margin, rule.threshold - margin)
        )
        mask = self.candidate_mask
        return not ((inner & ~mask).any() or (mask & ~outer).any())

    def _pasted(self, box_xyxy: NDArray[np.float32], rule: MaskHeadSpec, threshold: float) -> Bool:
        cut = MaskRule(rule.paste, threshold, rule.threshold_inclusive)
        dense = np.zeros(self.image_hw, dtype=np.bool_)
        for crop in paste_crops(self.reference_probs, box_xyxy, self.image_hw, cut):
            height, width = crop.rows.shape
            dense[crop.y0_px : crop.y0_px + height, crop.x0_px : crop.x0_px + width] = crop.rows
        return dense


def _pixel_near_tie(
    sides: _Sides, prob_diff: float, rule: MaskHeadSpec, epsilons: Epsilons
) -> NearTie | None:
    """Every pixel that differs is near the threshold in the reference's pasted mask."""
    margin, eps = prob_diff + _PASTE_ROUNDING, epsilons.mask_probability.value + _PASTE_ROUNDING
    if rule.paste == "float":
        # Sampling points move with the box: M cells per box side, and a probability changes by
        # at most 1 from cell to cell.
        cells_per_px = float((sides.mask_side / sides_wh(sides.reference_xyxy).clip(1e-6)).sum())
        box_diff = float(np.abs(sides.reference_xyxy - sides.candidate_xyxy).max())
        margin += cells_per_px * box_diff
        eps += cells_per_px * float(edge_noise(sides.reference_xyxy, epsilons)[0])
    if margin > eps or not sides.reproduces(sides.reference_xyxy, rule, margin):
        return None
    where = f"the farthest differing pixel of row {sides.row}, at most"
    return NearTie("mask probability", rule.threshold + margin, rule.threshold, eps, where)


def _edge_near_tie(
    sides: _Sides, prob_diff: float, rule: MaskHeadSpec, epsilons: Epsilons
) -> NearTie | None:
    """A coordinate of the expanded box is near an integer, and the candidate's is beyond it."""
    margin = prob_diff + _PASTE_ROUNDING
    if rule.paste != "integer" or not sides.reproduces(sides.candidate_xyxy, rule, margin):
        return None
    expanded, other = (
        _expanded(box[0], sides.mask_side) for box in (sides.reference_xyxy, sides.candidate_xyxy)
    )
    # The paste expands boxes in float32, which alone moves a coordinate by a few steps.
    step = 4.0 * np.spacing(np.abs(expanded).astype(np.float32)).astype(np.float64)
    low, high = np.minimum(expanded, other) - step, np.maximum(expanded, other) + step
    moved = np.trunc(low) != np.trunc(high)
    if not moved.any():
        return None
    distance = np.where(moved, np.abs(expanded - np.round(expanded)), -1.0)
    farthest = int(distance.argmax())
    value = float(expanded[farthest])
    eps = float(edge_noise(sides.reference_xyxy, epsilons)[0] + step[farthest])
    if distance[farthest] > eps:
        return None
    where = f"{('x0', 'y0', 'x1', 'y1')[farthest]} of the expanded box of row {sides.row}"
    return NearTie("paste edge", value, float(np.round(value)), eps, where)


def _expanded(box_xyxy: NDArray[np.float32], side: int) -> Float64:
    """The box scaled about its center by (M + 2) / M: torchvision's `expand_boxes`."""
    low, high = box_xyxy[:2].astype(np.float64), box_xyxy[2:].astype(np.float64)
    center, half = (low + high) / 2.0, (high - low) / 2.0 * (side + 2) / side
    return np.concatenate((center - half, center + half))
