"""Excuse a pair whose pasted masks differ although score and box agree.

A pasted mask follows from M x M probabilities and a box, so only three decisions can part two
masks: a pixel's probability against the threshold, the integer that a paste edge is truncated to,
and the pyramid level of the mask's RoI. The first two are accepted only if they reproduce the
candidate's mask from the reference's probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.spec import MaskHeadSpec, ModelSpec
from runtime.compare.borderline import Witness, edge_noise, level_witnesses, sides_wh
from runtime.compare.limits import Epsilons, Limits
from runtime.compare.matching import Bools, Comparison, Floats
from runtime.masks.paste import MaskRule, paste_crops

# Rounding of a pasted probability in float32.
_PASTE_ROUNDING = 1e-6


def mask_witness(
    pair: int, comparison: Comparison, spec: ModelSpec, canvas_xyxy: Floats, limits: Limits
) -> Witness | None:
    """The near decision that excuses the masks of one pair.

    Args:
        pair: Index in the comparison.
        comparison: Both results, with mask probabilities on both sides.
        spec: The eager model.
        canvas_xyxy: float64 [1, 4], the reference row's box on the canvas.
        limits: Whose epsilons apply.
    """
    if spec.mask is None or comparison.mask_prob_diff is None:
        return None
    prob_diff = float(comparison.mask_prob_diff[pair])
    if not prob_diff <= limits.epsilons.mask_probability.value:
        what = "mask RoI of this row,"
        turning = level_witnesses(canvas_xyxy, spec.mask.pooler, limits.epsilons, what)
        return next((witness for _, witness in turning), None)
    row, column = (int(index) for index in comparison.matching.pairs[pair])
    sides = _Sides.of(comparison, row, column)
    if sides is None:
        return None
    return _pixel_witness(sides, prob_diff, spec.mask, limits.epsilons) or _edge_witness(
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
    candidate_mask: Bools

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
        """M."""
        return int(self.reference_probs.shape[-1])

    def explains(self, box_xyxy: NDArray[np.float32], rule: MaskHeadSpec, reach: float) -> bool:
        """Whether the reference's probabilities give the candidate's mask within `reach`.

        That is: pasted into `box_xyxy` and cut `reach` above and below the threshold, they
        enclose the candidate's mask.
        """
        if not 0.0 < rule.threshold - reach < rule.threshold + reach < 1.0:
            return False
        inner, outer = (
            self._pasted(box_xyxy, rule, threshold)
            for threshold in (rule.threshold + reach, rule.threshold - reach)
        )
        mask = self.candidate_mask
        return not ((inner & ~mask).any() or (mask & ~outer).any())

    def _pasted(self, box_xyxy: NDArray[np.float32], rule: MaskHeadSpec, threshold: float) -> Bools:
        cut = MaskRule(rule.paste, threshold, rule.threshold_inclusive)
        dense = np.zeros(self.image_hw, dtype=np.bool_)
        for crop in paste_crops(self.reference_probs, box_xyxy, self.image_hw, cut):
            height, width = crop.rows.shape
            dense[crop.y0_px : crop.y0_px + height, crop.x0_px : crop.x0_px + width] = crop.rows
        return dense


def _pixel_witness(
    sides: _Sides, prob_diff: float, rule: MaskHeadSpec, epsilons: Epsilons
) -> Witness | None:
    """Every pixel that differs stands near the threshold in the reference's pasted mask."""
    reach, eps = prob_diff + _PASTE_ROUNDING, epsilons.mask_probability.value + _PASTE_ROUNDING
    if rule.paste == "float":
        # A box that moves takes the sampling points along: M cells per box side, and a
        # probability changes by at most 1 from cell to cell.
        cells_per_px = float((sides.mask_side / sides_wh(sides.reference_xyxy).clip(1e-6)).sum())
        box_diff = float(np.abs(sides.reference_xyxy - sides.candidate_xyxy).max())
        reach += cells_per_px * box_diff
        eps += cells_per_px * float(edge_noise(sides.reference_xyxy, epsilons)[0])
    if reach > eps or not sides.explains(sides.reference_xyxy, rule, reach):
        return None
    where = f"the farthest differing pixel of row {sides.row}, at most"
    return Witness("mask probability", rule.threshold + reach, rule.threshold, eps, where)


def _edge_witness(
    sides: _Sides, prob_diff: float, rule: MaskHeadSpec, epsilons: Epsilons
) -> Witness | None:
    """A coordinate of the grown box stands near an integer, and the candidate's is beyond it."""
    reach = prob_diff + _PASTE_ROUNDING
    if rule.paste != "integer" or not sides.explains(sides.candidate_xyxy, rule, reach):
        return None
    grown, other = (
        _grown(box[0], sides.mask_side) for box in (sides.reference_xyxy, sides.candidate_xyxy)
    )
    # The paste grows boxes in float32, which by itself moves a coordinate by a few steps.
    step = 4.0 * np.spacing(np.abs(grown).astype(np.float32)).astype(np.float64)
    low, high = np.minimum(grown, other) - step, np.maximum(grown, other) + step
    moved = np.trunc(low) != np.trunc(high)
    if not moved.any():
        return None
    distance = np.where(moved, np.abs(grown - np.round(grown)), -1.0)
    farthest = int(distance.argmax())
    value = float(grown[farthest])
    eps = float(edge_noise(sides.reference_xyxy, epsilons)[0] + step[farthest])
    if distance[farthest] > eps:
        return None
    where = f"{('x0', 'y0', 'x1', 'y1')[farthest]} of the grown box of row {sides.row}"
    return Witness("paste edge", value, float(np.round(value)), eps, where)


def _grown(box_xyxy: NDArray[np.float32], side: int) -> Floats:
    """The box about its centre, (M + 2) / M times as large: torchvision's `expand_boxes`."""
    low, high = box_xyxy[:2].astype(np.float64), box_xyxy[2:].astype(np.float64)
    centre, reach = (low + high) / 2.0, (high - low) / 2.0 * (side + 2) / side
    return np.concatenate((centre - reach, centre + reach))
