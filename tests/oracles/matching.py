"""Matching and suppression as slow, obvious loops."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def iou(a_xyxy: NDArray[np.floating], b_xyxy: NDArray[np.floating]) -> float:
    """IoU of two boxes with a positive union."""
    width = min(a_xyxy[2], b_xyxy[2]) - max(a_xyxy[0], b_xyxy[0])
    height = min(a_xyxy[3], b_xyxy[3]) - max(a_xyxy[1], b_xyxy[1])
    overlap = float(max(width, 0)) * float(max(height, 0))
    areas = [float(box[2] - box[0]) * float(box[3] - box[1]) for box in (a_xyxy, b_xyxy)]
    return overlap / (sum(areas) - overlap)


def best_total(value: Floats) -> float:
    """The largest sum over all one-to-one assignments of the shorter axis."""
    if value.shape[0] > value.shape[1]:
        value = value.T
    rows = range(value.shape[0])
    orders = permutations(range(value.shape[1]), value.shape[0])
    return max(sum(float(value[row, order[row]]) for row in rows) for order in orders)


def greedy_nms(
    boxes_xyxy: Floats, scores: Floats, groups: NDArray[np.int64], limit: float
) -> NDArray[np.bool_]:
    """Keep boxes in order of score unless a kept one of the same group overlaps by more."""
    keep = np.zeros(len(boxes_xyxy), dtype=np.bool_)
    for box in np.argsort(-scores, kind="stable"):
        before = [k for k in np.flatnonzero(keep) if groups[k] == groups[box]]
        keep[box] = all(iou(boxes_xyxy[k], boxes_xyxy[box]) <= limit for k in before)
    return keep
