"""Attribute a difference beyond its limit to a near tie of the eager run, at that row.

A near tie explains only rows that depend on it:

- a score at the threshold or a side at the minimum size: the row with this score or side;
- NMS, the top-k cuts and the minimum sizes: rows whose own candidate box, or a proposal that
  overlaps it, is undecided (`runtime.compare.borderline`);
- the level rule: rows whose proposal is at a level boundary;
- a mask alone (score and box agree): pixels at the threshold or a paste edge at an integer, if
  they reproduce the other mask;
- a keypoint alone: a pixel that is nearly the peak of its heat map.

Example: the eager run keeps boxes A (score 0.90) and B (0.80) of one class, whose IoU is
0.499999695 at an NMS limit of 0.5. In the exported file the IoU is above 0.5 and NMS drops B, so B
is an unmatched row of the reference. Another convolution library moves IoUs by up to 1e-5, so B is
undecided, and the difference is attributed to "NMS IoU 0.499999695 is 3.1e-07 from 0.5 (epsilon
1e-05) at candidate 0 and 1". At an IoU of 0.48 nothing would explain it, and the check would fail.

Module legend: P proposals before NMS, R after it, K candidate rows (proposal, class), all of one
image; boxes are xyxy in canvas pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.arrays import Bool, Float64, Int64
from model.spec import KeypointHeadSpec, MaskHeadSpec, ModelSpec
from runtime.compare.borderline import (
    NearTie,
    Selection,
    class_offset_noise,
    edge_noise,
    filter_outcomes,
    level_near_ties,
    moved_px,
    score_noise,
    select,
    suppression,
)
from runtime.compare.keypoint_attribution import KeypointTrace, keypoint_near_tie
from runtime.compare.limits import Excess, Limits, Verdict
from runtime.compare.mask_attribution import mask_near_tie
from runtime.compare.matching import Comparison, box_iou
from runtime.compare.result_protocol import DetectionResult
from runtime.compare.top_k_cut import explain_displaced, require_full


@dataclass(frozen=True, slots=True, eq=False)
class EagerTrace:
    """The numbers that one eager run made its decisions from, as plain arrays.

    Attributes:
        spec: The model, with the thresholds that the run used.
        canvas_scale_xy: Original-image pixels per canvas pixel, in x and in y.
        rpn_boxes: float32 [P, 4] that reached the filters before NMS: after the top-k of each
            level, clipped to the image.
        rpn_scores: float32 [P], probabilities.
        rpn_levels: int64 [P].
        proposals: float32 [R, 4] that reached the box head.
        candidate_boxes: float32 [K, 4], decoded and clipped, of every (proposal, class) with a
            score above the threshold or just below it, before the filters.
        candidate_scores: float32 [K].
        candidate_labels: int64 [K].
        rpn_kept: bool [P], what filters and NMS kept before the cut at `post_nms`; if given, it
            must agree with the certain outcomes.
        class_shift_up_to: Largest number of boxes for which NMS ran over boxes shifted by class
            in float32: 1000 for torchvision's `batched_nms` on a CPU, 25000 on a GPU, 0 for never.
        keypoints: Heat maps and boxes that the result's keypoints were decoded from.

    Raises:
        ValueError: The arrays do not fit each other.
    """

    spec: ModelSpec
    canvas_scale_xy: tuple[float, float]
    rpn_boxes: NDArray[np.float32]
    rpn_scores: NDArray[np.float32]
    rpn_levels: Int64
    proposals: NDArray[np.float32]
    candidate_boxes: NDArray[np.float32]
    candidate_scores: NDArray[np.float32]
    candidate_labels: Int64
    rpn_kept: Bool | None = None
    class_shift_up_to: int = 0
    keypoints: KeypointTrace | None = None

    def __post_init__(self) -> None:
        """Check that the arrays fit each other."""
        rpn, candidates = len(self.rpn_scores), len(self.candidate_scores)
        expected = {
            "rpn_boxes": (rpn, 4),
            "rpn_levels": (rpn,),
            "proposals": (len(self.proposals), 4),
            "candidate_boxes": (candidates, 4),
            "candidate_labels": (candidates,),
            "rpn_kept": (rpn,),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"eager trace: expected {name} {shape}, got {array.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Borderline:
    """All decisions of one eager run that noise can change."""

    trace: EagerTrace
    limits: Limits
    proposals: Selection
    detections: Selection
    levels: tuple[tuple[int, NearTie], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A detection on the canvas: float64 [1, 4] xyxy, and in the original image, [4]."""

    canvas_xyxy: Float64
    original_xyxy: NDArray[np.float32]
    label: int
    score: NDArray[np.float32]


def find_borderline(trace: EagerTrace, limits: Limits) -> Borderline:
    """Find every decision of one eager run that noise can change.

    Raises:
        ValueError: The trace contradicts certain outcomes, so the run did not follow its spec.
    """
    pooler = trace.spec.box.pooler
    edge_px = edge_noise(trace.proposals, limits.epsilons)
    levels = level_near_ties(trace.proposals, pooler, edge_px, "proposal")
    return Borderline(
        trace,
        limits,
        _proposal_selection(trace, limits),
        _detection_selection(trace, limits),
        tuple(levels),
    )


def _proposal_selection(trace: EagerTrace, limits: Limits) -> Selection:
    spec, boxes, scores = trace.spec.rpn, trace.rpn_boxes, trace.rpn_scores
    eps, what = limits.epsilons, "RPN box"
    rounding = _rounding(trace, boxes, trace.rpn_levels)
    pairs = suppression(boxes, scores, trace.rpn_levels, spec.nms_iou, eps, rounding)
    filters = (spec.min_size, spec.score_threshold)
    is_absent, near_ties = filter_outcomes(boxes, scores, *filters, eps, what)
    near_ties |= dict(_at_level_cut(trace, limits, what))
    selection = select(what, spec.post_nms, pairs, scores, is_absent, near_ties, eps)
    kept, certain = trace.rpn_kept, selection.outcomes
    if kept is not None and ((certain.kept & ~kept) | (certain.dropped & kept)).any():
        raise ValueError(
            "eager trace: rpn_kept contradicts the spec's filters and NMS beyond all noise; "
            "record the boxes before the filters, and the spec that the run used"
        )
    return selection


def _rounding(trace: EagerTrace, boxes_xyxy: NDArray[np.float32], groups: Int64) -> Float64:
    if len(boxes_xyxy) <= trace.class_shift_up_to:
        return class_offset_noise(boxes_xyxy, groups)
    return np.zeros(len(boxes_xyxy))


def _at_level_cut(trace: EagerTrace, limits: Limits, what: str) -> Iterator[tuple[int, NearTie]]:
    """Boxes that the top-k of their level may cut: those nearly equal in score to its last one."""
    scores = trace.rpn_scores.astype(np.float64)
    noise = score_noise(trace.rpn_scores, limits.epsilons.score_logit.value)
    for level in np.unique(trace.rpn_levels):
        members = np.flatnonzero(trace.rpn_levels == level)
        if members.size < trace.spec.rpn.pre_nms:
            continue
        last = members[scores[members].argmin()]
        eps = noise[members] + noise[last]
        for i in np.flatnonzero(scores[members] - scores[last] <= eps):
            box, value = int(members[i]), float(scores[members[i]])
            numbers = (value, float(scores[last]), float(eps[i]))
            yield box, NearTie("score at its level's cut", *numbers, f"{what} {box}")


def _detection_selection(trace: EagerTrace, limits: Limits) -> Selection:
    spec, boxes, scores = trace.spec.box, trace.candidate_boxes, trace.candidate_scores
    eps, what = limits.epsilons, "candidate"
    rounding = _rounding(trace, boxes, trace.candidate_labels)
    pairs = suppression(boxes, scores, trace.candidate_labels, spec.nms_iou, eps, rounding)
    filters = (spec.min_size, spec.score_threshold)
    is_absent, near_ties = filter_outcomes(boxes, scores, *filters, eps, what)
    return select(what, spec.detections, pairs, scores, is_absent, near_ties, eps)


def explain(
    verdict: Verdict,
    comparisons: Sequence[Comparison],
    trace_of: Callable[[str], EagerTrace | None],
) -> Verdict:
    """Set the near tie of each excess of a verdict, where there is one.

    Args:
        verdict: Of `limits.check` over `comparisons`.
        comparisons: The same as were checked.
        trace_of: Returns the eager run of an image by its name, or None; called only for images
            with an excess.
    """
    by_name = {comparison.image: comparison for comparison in comparisons}
    excesses: dict[str, list[Excess]] = {}
    for excess in verdict.excesses:
        excesses.setdefault(excess.image, []).append(excess)
    explained: list[Excess] = []
    for image, of_image in excesses.items():
        trace = trace_of(image)
        if trace is not None:
            borderline = find_borderline(trace, verdict.limits)
            ties = [find_near_tie(excess, by_name[image], borderline) for excess in of_image]
            of_image = [
                excess if tie is None else replace(excess, near_tie=str(tie))
                for excess, tie in zip(of_image, ties, strict=True)
            ]
            of_image = explain_displaced(of_image, by_name[image], trace.spec.box.detections)
            stage = borderline.detections
            survivors = int(stage.outcomes.kept.sum())
            of_image = require_full(of_image, by_name[image], stage.top_k, survivors)
        explained += of_image
    return replace(verdict, excesses=tuple(explained))


def find_near_tie(excess: Excess, comparison: Comparison, borderline: Borderline) -> NearTie | None:
    """The near tie of the eager run that explains one excess; None where there is none.

    Args:
        excess: Of one row.
        comparison: Of the excess's image.
        borderline: Of the same image, by `find_borderline`.
    """
    trace, limits = borderline.trace, borderline.limits
    rows = _rows(excess, comparison, trace)
    if excess.quantity in ("mask_iou", "mask_probability") and _same_box(
        excess.pair, comparison, limits
    ):
        level = _roi_level_near_tie(rows, trace.spec.mask, "mask RoI of this row,")
        return mask_near_tie(excess.pair, comparison, trace.spec, level, limits)
    if excess.keypoint >= 0 and _same_box(excess.pair, comparison, limits):
        level = _roi_level_near_tie(rows, trace.spec.keypoint, "keypoint RoI of this row,")
        scale_xy = trace.canvas_scale_xy
        return keypoint_near_tie(
            excess, comparison, trace.spec, trace.keypoints, scale_xy, level, limits
        )
    near_tie = _candidate_near_tie(rows, borderline, is_pair=excess.pair >= 0)
    for row in rows:
        if excess.quantity == "unmatched":
            near_tie = near_tie or _filter_near_tie(row, borderline)
        near_tie = near_tie or _proposal_near_tie(row, borderline)
        near_tie = near_tie or _level_near_tie(row, borderline)
    return near_tie


def _rows(excess: Excess, comparison: Comparison, trace: EagerTrace) -> list[_Row]:
    """The row of an excess; for a pair its reference row and its candidate row."""
    reference, candidate = comparison.reference, comparison.candidate
    if excess.pair < 0:
        rows = reference if excess.side == "reference" else candidate
        return [_on_canvas(rows, excess.row, trace)]
    row, column = (int(index) for index in comparison.matching.pairs[excess.pair])
    return [_on_canvas(reference, row, trace), _on_canvas(candidate, column, trace)]


def _on_canvas(rows: DetectionResult, row: int, trace: EagerTrace) -> _Row:
    original = rows.boxes[row]
    canvas = (original / np.tile(trace.canvas_scale_xy, 2)).reshape(1, 4)
    return _Row(canvas, original, int(rows.labels[row]), rows.scores[row : row + 1])


def _roi_level_near_tie(
    rows: list[_Row], head: MaskHeadSpec | KeypointHeadSpec | None, what: str
) -> NearTie | None:
    """The two boxes of a pair, which are the head's RoIs, are at a boundary of two levels."""
    if head is None:
        return None
    reference, candidate = (row.canvas_xyxy for row in rows)
    edge_px = moved_px(reference, candidate)
    ties = level_near_ties(reference, head.pooler, edge_px, what)
    return next((tie for _, tie in ties), None)


def _same_box(pair: int, comparison: Comparison, limits: Limits) -> bool:
    """Whether score and box of a pair are within limits: then mask or keypoint must explain."""
    return bool(
        comparison.score_diff[pair] <= limits.score.value
        and comparison.box_diff_px[pair] <= limits.box_px.value
    )


def _candidate_near_tie(rows: list[_Row], borderline: Borderline, is_pair: bool) -> NearTie | None:
    """An undecided candidate that equals one of the rows.

    Another outcome of NMS returns another candidate of the same run, so every row, of the other
    side too, must equal a candidate. The top-k cut removes rows and changes none, so it does not
    explain a pair.
    """
    own = [_own_candidates(row, borderline) for row in rows]
    if not all(candidates.size for candidates in own):
        return None
    stage = borderline.detections
    undecided = stage.undecided & stage.outcomes.undecided if is_pair else stage.undecided
    candidates = np.concatenate(own)
    for candidate in candidates[undecided[candidates]]:
        return stage.near_tie(int(candidate))
    return None


def _own_candidates(row: _Row, borderline: Borderline) -> Int64:
    """The run's candidates that equal the row within the limits."""
    trace, limits = borderline.trace, borderline.limits
    boxes = trace.candidate_boxes * np.tile(trace.canvas_scale_xy, 2)
    box_diff_px = np.abs(boxes - row.original_xyxy).max(axis=1)
    score_diff = np.abs(trace.candidate_scores.astype(np.float64) - row.score)
    return np.flatnonzero(
        (trace.candidate_labels == row.label)
        & (box_diff_px <= limits.box_px.value)
        & (score_diff <= limits.score.value)
    )


def _filter_near_tie(row: _Row, borderline: Borderline) -> NearTie | None:
    """The row's own score at the threshold, or its side at the minimum size."""
    spec, epsilons = borderline.trace.spec.box, borderline.limits.epsilons
    _, near_ties = filter_outcomes(
        row.canvas_xyxy, row.score, spec.min_size, spec.score_threshold, epsilons, "this row"
    )
    return near_ties.get(0)


def _proposal_near_tie(row: _Row, borderline: Borderline) -> NearTie | None:
    """A proposal over the row that noise adds or removes."""
    undecided = np.flatnonzero(borderline.proposals.undecided)
    overlap = box_iou(borderline.trace.rpn_boxes[undecided], row.canvas_xyxy)[:, 0]
    for box in undecided[overlap >= borderline.limits.epsilons.local_iou.value]:
        return borderline.proposals.near_tie(int(box))
    return None


def _level_near_tie(row: _Row, borderline: Borderline) -> NearTie | None:
    """A proposal over the row that noise moves to another pyramid level."""
    overlap = box_iou(borderline.trace.proposals, row.canvas_xyxy)[:, 0]
    local = borderline.limits.epsilons.local_iou.value
    return next((tie for box, tie in borderline.levels if overlap[box] >= local), None)
