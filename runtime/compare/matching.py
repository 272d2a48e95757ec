"""Match the rows of two results one to one, and measure the differences of each pair.

Row order is ignored, because rows of equal score may swap. Only rows of one label can match.

The assignment is solved here, not by scipy, which the `export` extra does not install. Eligible
rows fall into tiny connected components, nearly all 1x1.

Module legend: D detections, P pairs, M mask side, J keypoints; boxes are xyxy in original-image
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.arrays import Bool, Float64, Int64
from model.errors import UsageError
from runtime.compare.result_protocol import DetectionResult

MIN_IOU = 0.5
# Small enough that similar scores and masks never outweigh a real difference of boxes.
_SIMILARITY_WEIGHT = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """`pairs` int64 [P, 2] of (reference row, candidate row), and the unmatched rows of each."""

    pairs: Int64
    unmatched_reference: Int64
    unmatched_candidate: Int64


@dataclass(frozen=True, slots=True)
class Extremes:
    """The worst pair in each quantity; None where no pair has it. `mask_iou` is the smallest."""

    score_diff: float | None
    box_diff_px: float | None
    mask_prob_diff: float | None
    mask_iou: float | None
    keypoint_diff_px: float | None = None
    keypoint_score_diff: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One image: both results, their matching, and the differences of each pair.

    Differences are arrays [P], those of keypoints [P, J].

    `box_diff_px` is the largest of the four coordinates, `mask_prob_diff` the largest of M x M
    (None unless both sides have probabilities). `mask_iou` and `mask_area_px` (of the reference)
    are of the pasted masks: None where neither side has masks, IoU 0 where only one has.
    `keypoint_diff_px` is the larger of x and y, `keypoint_score_diff` the difference over the
    reference's score where that is beyond 1: None where neither side has keypoints, infinite where
    only one has.
    """

    image: str
    reference: DetectionResult
    candidate: DetectionResult
    matching: Matching
    score_diff: Float64
    box_diff_px: Float64
    mask_prob_diff: Float64 | None
    mask_iou: Float64 | None
    mask_area_px: Int64 | None
    keypoint_diff_px: Float64 | None = None
    keypoint_score_diff: Float64 | None = None

    @property
    def extremes(self) -> Extremes:
        """The worst pair in each quantity; NaN where any pair has NaN."""
        return Extremes(
            score_diff=_worst(self.score_diff, np.max),
            box_diff_px=_worst(self.box_diff_px, np.max),
            mask_prob_diff=_worst(self.mask_prob_diff, np.max),
            mask_iou=_worst(self.mask_iou, np.min),
            keypoint_diff_px=_worst(self.keypoint_diff_px, np.max),
            keypoint_score_diff=_worst(self.keypoint_score_diff, np.max),
        )


def _worst(values: Float64 | None, pick: Callable[[Float64], float]) -> float | None:
    return float(pick(values)) if values is not None and values.size else None


def box_iou(a_xyxy: NDArray[np.floating], b_xyxy: NDArray[np.floating]) -> Float64:
    """IoU of every box of one set with every box of another, in continuous coordinates.

    Args:
        a_xyxy: float [A, 4].
        b_xyxy: float [B, 4], in the same frame.

    Returns:
        float64 [A, B]; where both areas are zero, 1 for equal boxes and 0 for others.
    """
    a, b = a_xyxy.astype(np.float64)[:, None], b_xyxy.astype(np.float64)[None]
    overlap_wh = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    overlap = overlap_wh.clip(0).prod(axis=-1)
    union = _area(a) + _area(b) - overlap
    equal = (a == b).all(axis=-1)
    iou: Float64 = np.where(union > 0, overlap / np.where(union > 0, union, 1.0), equal)
    return iou


def _area(boxes_xyxy: Float64) -> Float64:
    area: Float64 = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(axis=-1)
    return area


def match(
    reference: DetectionResult, candidate: DetectionResult, min_iou: float = MIN_IOU
) -> Matching:
    """Assign rows of equal label and box IoU >= `min_iou` to each other, at most once each.

    The sum of IoU beyond `min_iou` is maximal; among rows with equal boxes, the similarity of
    scores and mask probabilities decides.
    """
    iou = box_iou(reference.boxes, candidate.boxes)
    iou[reference.labels[:, None] != candidate.labels[None]] = -1.0
    pairs: list[tuple[int, int]] = []
    for rows, columns in _components(iou >= min_iou):
        block = iou[np.ix_(rows, columns)]
        value = (
            block - min_iou + _SIMILARITY_WEIGHT * _similarity(reference, candidate, rows, columns)
        )
        value[~(block >= min_iou)] = 0.0
        pairs += [
            (int(rows[i]), int(columns[j])) for i, j in assign(value) if block[i, j] >= min_iou
        ]
    matched = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return Matching(
        matched,
        np.setdiff1d(np.arange(len(reference)), matched[:, 0]),
        np.setdiff1d(np.arange(len(candidate)), matched[:, 1]),
    )


def _components(eligible: Bool) -> Iterator[tuple[Int64, Int64]]:
    """Rows and columns of each connected component of a bipartite graph, bool [A, B]."""
    free = np.asarray(eligible.any(axis=1))
    while free.any():
        rows = np.zeros_like(free)
        rows[free.argmax()] = True
        while True:
            columns = np.asarray(eligible[rows].any(axis=0))
            grown = np.asarray(eligible[:, columns].any(axis=1))
            if (grown == rows).all():
                break
            rows = grown
        yield np.flatnonzero(rows), np.flatnonzero(columns)
        free = free & ~rows


def _similarity(
    reference: DetectionResult, candidate: DetectionResult, rows: Int64, columns: Int64
) -> Float64:
    """Between 1 and 3 for every pair: 1, plus 1 each for equal scores and equal masks."""
    scores = reference.scores[rows, None].astype(np.float64) - candidate.scores[columns]
    similarity = 3.0 - np.abs(scores)
    a, b = reference.mask_probs, candidate.mask_probs
    if a is not None and b is not None and len(rows) * len(columns) > 1:
        others = b[columns]
        similarity -= [np.abs(a[row] - others).mean(axis=(1, 2), dtype=np.float64) for row in rows]
    # The assignment needs an order, which NaN has not; `compare` still reports it.
    return np.nan_to_num(similarity, nan=1.0)


def assign(value: Float64) -> list[tuple[int, int]]:
    """The one-to-one assignment of the largest total value that uses every row or every column.

    Args:
        value: float64 [A, B], finite, A and B at least 1.

    Returns:
        min(A, B) pairs (row, column).

    Source: the Hungarian method with shortest augmenting paths and dual prices (Kuhn, Munkres).
    """
    if value.shape[0] > value.shape[1]:
        return [(row, column) for column, row in assign(value.T)]
    cost = value.max() - value
    row_price, column_price = np.zeros(cost.shape[0]), np.zeros(cost.shape[1])
    row_of = np.full(cost.shape[1], -1)
    for row in range(cost.shape[0]):
        _augment(cost, row_price, column_price, row_of, row)
    return [(int(row_of[column]), int(column)) for column in np.flatnonzero(row_of >= 0)]


def _augment(
    cost: Float64, row_price: Float64, column_price: Float64, row_of: Int64, start: int
) -> None:
    """Assign row `start` along the cheapest alternating path; update the dual prices."""
    distance = np.full(cost.shape[1], np.inf)
    came_from = np.full(cost.shape[1], -1)
    done = np.zeros(cost.shape[1], dtype=np.bool_)
    row, column, reached = start, -1, 0.0
    while row >= 0:
        through = reached + cost[row] - row_price[row] - column_price
        shorter = ~done & (through < distance)
        distance[shorter], came_from[shorter] = through[shorter], column
        column = int(np.where(done, np.inf, distance).argmin())
        reached = float(distance[column])
        done[column] = True
        row = int(row_of[column])
    row_price[start] += reached
    inner = np.flatnonzero(done & (row_of >= 0))
    row_price[row_of[inner]] += reached - distance[inner]
    column_price[inner] -= reached - distance[inner]
    while column >= 0:
        before = int(came_from[column])
        row_of[column] = row_of[before] if before >= 0 else start
        column = before


def compare(reference: DetectionResult, candidate: DetectionResult, image: str = "") -> Comparison:
    """Match two results of one image and measure every pair.

    Args:
        reference: Usually the eager model's result.
        candidate: The result to be compared with it.
        image: Its name in messages; unique within one check.

    Raises:
        UsageError: the two are of images, or have masks, of different sizes.
    """
    _require_same_frame(reference, candidate, image)
    matching = match(reference, candidate)
    rows, columns = matching.pairs.T
    mask_iou, mask_area_px = _mask_overlap(reference.masks, candidate.masks, rows, columns)
    boxes = reference.boxes[rows].astype(np.float64) - candidate.boxes[columns]
    keypoint_diff_px, keypoint_score_diff = _keypoint_diff(
        reference.keypoints, candidate.keypoints, rows, columns
    )
    return Comparison(
        image=image,
        reference=reference,
        candidate=candidate,
        matching=matching,
        score_diff=np.abs(reference.scores[rows].astype(np.float64) - candidate.scores[columns]),
        box_diff_px=np.abs(boxes).max(axis=1),
        mask_prob_diff=_prob_diff(reference.mask_probs, candidate.mask_probs, rows, columns),
        mask_iou=mask_iou,
        mask_area_px=mask_area_px,
        keypoint_diff_px=keypoint_diff_px,
        keypoint_score_diff=keypoint_score_diff,
    )


def _require_same_frame(reference: DetectionResult, candidate: DetectionResult, image: str) -> None:
    where = f"compare {image or 'image'}"
    if tuple(reference.image_hw) != tuple(candidate.image_hw):
        raise UsageError(
            f"{where}: expected two results of one image, got sizes (H, W) "
            f"{reference.image_hw} and {candidate.image_hw}; run both on the same photo"
        )
    parts = (
        ("masks of one side length", reference.mask_probs, candidate.mask_probs),
        ("equal numbers of keypoints", reference.keypoints, candidate.keypoints),
    )
    for what, a, b in parts:
        if a is not None and b is not None and a.shape[1:] != b.shape[1:]:
            raise UsageError(
                f"{where}: expected {what}, got {a.shape[1:]} and {b.shape[1:]}; "
                "compare two results of the same model"
            )


def _prob_diff(
    a: NDArray[np.float32] | None, b: NDArray[np.float32] | None, rows: Int64, columns: Int64
) -> Float64 | None:
    if a is None or b is None:
        return None
    largest: NDArray[np.float32] = np.abs(a[rows] - b[columns]).max(axis=(1, 2), initial=0.0)
    return largest.astype(np.float64)


def _mask_overlap(
    a: Bool | None, b: Bool | None, rows: Int64, columns: Int64
) -> tuple[Float64 | None, Int64 | None]:
    """IoU of each pair of pasted masks (1 where both are empty) and the reference's area."""
    if a is None and b is None:
        return None, None
    iou, area_px = np.zeros(rows.size), np.zeros(rows.size, dtype=np.int64)
    for pair, (row, column) in enumerate(zip(rows, columns, strict=True)):
        if a is not None:
            area_px[pair] = np.count_nonzero(a[row])
        if a is not None and b is not None:
            union = np.count_nonzero(a[row] | b[column])
            iou[pair] = np.count_nonzero(a[row] & b[column]) / union if union else 1.0
    return iou, area_px


def _keypoint_diff(
    a: NDArray[np.float32] | None, b: NDArray[np.float32] | None, rows: Int64, columns: Int64
) -> tuple[Float64 | None, Float64 | None]:
    """Difference in pixels and in score of each keypoint of each pair, [P, J]."""
    if a is None or b is None:
        present = a if b is None else b
        if present is None:
            return None, None
        missing = np.full((rows.size, present.shape[1]), np.inf)
        return missing, missing
    reference = a[rows].astype(np.float64)
    diff = np.abs(reference - b[columns])
    return diff[..., :2].max(axis=2), diff[..., 2] / np.abs(reference[..., 2]).clip(1.0)
