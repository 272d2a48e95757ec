"""Excuse an excess only by a decision that the eager run nearly took otherwise, at that row.

A witness is local. A score at the threshold excuses the row that has this score; NMS, the top-k
cuts and the minimum sizes excuse rows whose own candidate box, or a proposal that covers the same
place, has an open fate (`runtime.compare.borderline`); the level rule excuses rows whose proposal
stands at a boundary. A mask alone is excused only while its probabilities agree, by pixels at the
threshold or by a paste edge at an integer, and only if these reproduce the other mask; a keypoint
alone, by a place that is nearly the peak of its heat map.

Module legend: P proposals before NMS, R after it, K candidate rows (proposal, class), all of one
image; boxes are xyxy in canvas pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.spec import ModelSpec
from runtime.compare.borderline import (
    Selection,
    Witness,
    class_offset_noise,
    level_witnesses,
    presence,
    score_noise,
    select,
    suppression,
)
from runtime.compare.displacement import explain_displaced
from runtime.compare.keypoint_attribution import KeypointTrace, keypoint_witness
from runtime.compare.limits import Excess, Limits, Verdict
from runtime.compare.mask_attribution import mask_witness
from runtime.compare.matching import Bools, Comparison, Floats, Ints, box_iou
from runtime.compare.result_protocol import DetectionResult


@dataclass(frozen=True, slots=True, eq=False)
class EagerTrace:
    """What one eager run decided about, as plain arrays.

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
        rpn_kept: bool [P], what filters and NMS kept before the cut at `post_nms`; when given,
            it must agree with what is certain.
        class_shift_up_to: Largest number of boxes for which NMS ran over boxes shifted by class
            in float32: 1000 for torchvision's `batched_nms` on a CPU, 25000 on a GPU, 0 for never.
        keypoints: What the result's keypoints were decoded from.

    Raises:
        ValueError: The arrays do not fit each other.
    """

    spec: ModelSpec
    canvas_scale_xy: tuple[float, float]
    rpn_boxes: NDArray[np.float32]
    rpn_scores: NDArray[np.float32]
    rpn_levels: Ints
    proposals: NDArray[np.float32]
    candidate_boxes: NDArray[np.float32]
    candidate_scores: NDArray[np.float32]
    candidate_labels: Ints
    rpn_kept: Bools | None = None
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
class Openings:
    """Everything in one eager run that noise can turn."""

    trace: EagerTrace
    limits: Limits
    proposals: Selection
    detections: Selection
    levels: tuple[tuple[int, Witness], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A detection on the canvas: float64 [1, 4] xyxy, and in the original image, [4]."""

    canvas_xyxy: Floats
    original_xyxy: NDArray[np.float32]
    label: int
    score: NDArray[np.float32]


def weigh(trace: EagerTrace, limits: Limits) -> Openings:
    """Find every decision of one eager run that noise can turn.

    Raises:
        ValueError: The trace contradicts what is certain, so the run that it tells of follows
            other rules than its spec's.
    """
    pooler = trace.spec.box.pooler
    levels = level_witnesses(trace.proposals, pooler, limits.epsilons, "proposal")
    return Openings(
        trace, limits, _weigh_rpn(trace, limits), _weigh_box_head(trace, limits), tuple(levels)
    )


def _weigh_rpn(trace: EagerTrace, limits: Limits) -> Selection:
    spec, boxes, scores = trace.spec.rpn, trace.rpn_boxes, trace.rpn_scores
    eps, what = limits.epsilons, "RPN box"
    rounding = _rounding(trace, boxes, trace.rpn_levels)
    pairs = suppression(boxes, scores, trace.rpn_levels, spec.nms_iou, eps, rounding)
    is_absent, uncertain = presence(boxes, scores, spec.min_size, spec.score_threshold, eps, what)
    uncertain |= dict(_at_level_cut(trace, limits, what))
    chosen = select(what, spec.post_nms, pairs, scores, is_absent, uncertain, eps)
    kept = trace.rpn_kept
    if kept is not None and ((chosen.fates.kept & ~kept) | (chosen.fates.dropped & kept)).any():
        raise ValueError(
            "eager trace: rpn_kept contradicts the spec's filters and NMS beyond all noise; "
            "record the boxes before the filters, and the spec that the run used"
        )
    return chosen


def _rounding(trace: EagerTrace, boxes_xyxy: NDArray[np.float32], groups: Ints) -> Floats:
    if len(boxes_xyxy) <= trace.class_shift_up_to:
        return class_offset_noise(boxes_xyxy, groups)
    return np.zeros(len(boxes_xyxy))


def _at_level_cut(trace: EagerTrace, limits: Limits, what: str) -> Iterator[tuple[int, Witness]]:
    """Boxes that the top-k of their level may cut: those level with its last one."""
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
            yield box, Witness("score at its level's cut", *numbers, f"{what} {box}")


def _weigh_box_head(trace: EagerTrace, limits: Limits) -> Selection:
    spec, boxes, scores = trace.spec.box, trace.candidate_boxes, trace.candidate_scores
    eps, what = limits.epsilons, "candidate"
    rounding = _rounding(trace, boxes, trace.candidate_labels)
    pairs = suppression(boxes, scores, trace.candidate_labels, spec.nms_iou, eps, rounding)
    is_absent, uncertain = presence(boxes, scores, spec.min_size, spec.score_threshold, eps, what)
    return select(what, spec.detections, pairs, scores, is_absent, uncertain, eps)


def explain(
    verdict: Verdict,
    comparisons: Sequence[Comparison],
    trace_of: Callable[[str], EagerTrace | None],
) -> Verdict:
    """Give each excess of a verdict its witness, where there is one.

    Args:
        verdict: Of `limits.check` over `comparisons`.
        comparisons: The same as were checked.
        trace_of: The eager run of an image by its name, or None; asked only where needed.
    """
    by_name = {comparison.image: comparison for comparison in comparisons}
    openings: dict[str, Openings | None] = {}
    explained = []
    for excess in verdict.excesses:
        image = excess.image
        if image not in openings:
            trace = trace_of(image)
            openings[image] = weigh(trace, verdict.limits) if trace is not None else None
        known = openings[image]
        witness = find_witness(excess, by_name[image], known) if known is not None else None
        explained.append(replace(excess, witness=str(witness)) if witness else excess)
    for image, known in openings.items():
        if known is not None:
            of_image = [excess for excess in explained if excess.image == image]
            others = [excess for excess in explained if excess.image != image]
            quota = known.trace.spec.box.detections
            explained = [*others, *explain_displaced(of_image, by_name[image], quota)]
    return replace(verdict, excesses=tuple(explained))


def find_witness(excess: Excess, comparison: Comparison, openings: Openings) -> Witness | None:
    """The near decision of the eager run that excuses one excess; None where nothing does.

    Args:
        excess: One row's.
        comparison: Of the excess's image.
        openings: Of the same image, by `weigh`.
    """
    trace, limits = openings.trace, openings.limits
    rows = _rows(excess, comparison, trace)
    if excess.quantity == "mask_iou" and _same_box(excess.pair, comparison, limits):
        return mask_witness(excess.pair, comparison, trace.spec, rows[0].canvas_xyxy, limits)
    if excess.keypoint >= 0 and _same_box(excess.pair, comparison, limits):
        scale_xy = trace.canvas_scale_xy
        return keypoint_witness(excess, comparison, trace.spec, trace.keypoints, scale_xy, limits)
    found = _candidate_witness(rows, openings, is_pair=excess.pair >= 0)
    for row in rows:
        if excess.quantity == "unmatched":
            found = found or _own_witness(row, openings)
        found = found or _proposal_witness(row, openings) or _level_witness(row, openings)
    return found


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


def _same_box(pair: int, comparison: Comparison, limits: Limits) -> bool:
    """Whether score and box of a pair are within limits: then mask or keypoint must explain."""
    return bool(
        comparison.score_diff[pair] <= limits.score.value
        and comparison.box_diff_px[pair] <= limits.box_px.value
    )


def _candidate_witness(rows: list[_Row], openings: Openings, is_pair: bool) -> Witness | None:
    """An open fate of a candidate that is one of the rows.

    Another outcome of NMS answers with another candidate of the same run, so every row, the
    other side's too, must equal one. The cut at the quota takes rows away and changes none, so
    it does not explain a pair.
    """
    own = [_own_candidates(row, openings) for row in rows]
    if not all(candidates.size for candidates in own):
        return None
    stage = openings.detections
    turning = stage.is_open & stage.fates.is_open if is_pair else stage.is_open
    together = np.concatenate(own)
    for candidate in together[turning[together]]:
        return stage.witness(int(candidate))
    return None


def _own_candidates(row: _Row, openings: Openings) -> Ints:
    """The run's candidates that equal the row within the limits."""
    trace, limits = openings.trace, openings.limits
    boxes = trace.candidate_boxes * np.tile(trace.canvas_scale_xy, 2)
    box_diff_px = np.abs(boxes - row.original_xyxy).max(axis=1)
    score_diff = np.abs(trace.candidate_scores.astype(np.float64) - row.score)
    return np.flatnonzero(
        (trace.candidate_labels == row.label)
        & (box_diff_px <= limits.box_px.value)
        & (score_diff <= limits.score.value)
    )


def _own_witness(row: _Row, openings: Openings) -> Witness | None:
    """The row's own score at the threshold, or its own side at the minimum size."""
    spec, epsilons = openings.trace.spec.box, openings.limits.epsilons
    _, uncertain = presence(
        row.canvas_xyxy, row.score, spec.min_size, spec.score_threshold, epsilons, "this row"
    )
    return uncertain.get(0)


def _proposal_witness(row: _Row, openings: Openings) -> Witness | None:
    """A proposal at the row's place that noise adds or removes."""
    turning = np.flatnonzero(openings.proposals.is_open)
    overlap = box_iou(openings.trace.rpn_boxes[turning], row.canvas_xyxy)[:, 0]
    for box in turning[overlap >= openings.limits.epsilons.local_iou.value]:
        return openings.proposals.witness(int(box))
    return None


def _level_witness(row: _Row, openings: Openings) -> Witness | None:
    """A proposal at the row's place that noise moves to another pyramid level."""
    overlap = box_iou(openings.trace.proposals, row.canvas_xyxy)[:, 0]
    local = openings.limits.epsilons.local_iou.value
    near = (witness for box, witness in openings.levels if overlap[box] >= local)
    return next(near, None)
