"""MMDetection 2's test-time rules as slow, obvious NumPy, written from its published code.

MMDetection was not run. Float32 where MMDetection's float32 rounding can change the result.
"""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.roi_align import greedy_nms

RATIOS = (0.5, 1.0, 2.0)
MAX_LOG_SCALE = abs(math.log(16 / 1000))


def resized_hw(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """mmcv `rescale_size`, to a scale of (long, short)."""
    scale = min(long / max(height, width), short / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def _taps(at: int, source: int, target: int) -> tuple[int, int, int, int]:
    """Two source indices and their weights in units of 1 / 2048."""
    center = np.float32((at + 0.5) * (1.0 / (target / source)) - 0.5)
    first = math.floor(center)
    second_weight = np.float32(center - np.float32(first))
    weights = [round(float(w) * 2048) for w in (np.float32(1) - second_weight, second_weight)]
    clamp = [min(max(i, 0), source - 1) for i in (first, first + 1)]
    return clamp[0], clamp[1], weights[0], weights[1]


def resize(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """cv2 `resize` of uint8 [h, w, C] by INTER_LINEAR: 11-bit weights, two truncating shifts."""
    resized = np.zeros((height, width, photo.shape[2]), np.uint8)
    for y in range(height):
        y0, y1, upper, lower = _taps(y, photo.shape[0], height)
        for x in range(width):
            x0, x1, left, right = _taps(x, photo.shape[1], width)
            for c in range(photo.shape[2]):
                rows = [
                    int(photo[r, x0, c]) * left + int(photo[r, x1, c]) * right for r in (y0, y1)
                ]
                parts = (upper * (rows[0] >> 4) >> 16) + (lower * (rows[1] >> 4) >> 16)
                resized[y, x, c] = (parts + 2) >> 2
    return resized


def anchors(grid_hw: tuple[int, int], stride: int) -> np.ndarray:
    """`AnchorGenerator(scales=[8])` of one level, float64 [h * w * 3, 4] xyxy."""
    rows = []
    for y in range(grid_hw[0]):
        for x in range(grid_hw[1]):
            for ratio in RATIOS:
                w, h = 8 * stride / math.sqrt(ratio), 8 * stride * math.sqrt(ratio)
                cx, cy = x * stride, y * stride
                rows.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    return np.array(rows)


def decode(
    box: np.ndarray, delta: np.ndarray, stds: tuple[float, ...], image_hw: tuple[int, int]
) -> np.ndarray:
    """`DeltaXYWHBBoxCoder.decode` of one box, clipped to the image."""
    dx, dy, dw, dh = (float(d) * s for d, s in zip(delta, stds, strict=True))
    dw, dh = (min(max(d, -MAX_LOG_SCALE), MAX_LOG_SCALE) for d in (dw, dh))
    w, h = box[2] - box[0], box[3] - box[1]
    cx, cy = (box[0] + box[2]) / 2 + dx * w, (box[1] + box[3]) / 2 + dy * h
    w, h = w * math.exp(dw), h * math.exp(dh)
    x = [min(max(v, 0.0), float(image_hw[1])) for v in (cx - w / 2, cx + w / 2)]
    y = [min(max(v, 0.0), float(image_hw[0])) for v in (cy - h / 2, cy + h / 2)]
    return np.array([x[0], y[0], x[1], y[1]])


def _nms(boxes: np.ndarray, scores: np.ndarray, limit: float) -> np.ndarray:
    """Indices of the kept rows, best first."""
    order = np.argsort(-scores, kind="stable")
    everything = np.ones(len(order), bool)
    return order[greedy_nms(boxes[order], everything, ~everything, limit)]


def proposals(
    logits: list[np.ndarray],
    deltas: list[np.ndarray],
    strides: tuple[int, ...],
    image_hw: tuple[int, int],
    nms_pre: int = 1000,
    max_per_img: int = 1000,
) -> tuple[np.ndarray, np.ndarray]:
    """`RPNHead` at test time for one image: boxes [R, 4] and logits [R], best first.

    Args:
        logits: [3, h, w] per level.
        deltas: [12, h, w] per level.
    """
    boxes, scores = [], []
    for level, stride in enumerate(strides):
        flat = logits[level].transpose(1, 2, 0).reshape(-1)
        of_level = deltas[level].transpose(1, 2, 0).reshape(-1, 4)
        priors = anchors(logits[level].shape[1:], stride)
        best = np.argsort(-flat, kind="stable")[:nms_pre]
        decoded = [decode(priors[i], of_level[i], (1, 1, 1, 1), image_hw) for i in best]
        kept = [
            (box, flat[i])
            for box, i in zip(decoded, best, strict=True)
            if box[2] - box[0] > 0 and box[3] - box[1] > 0
        ]
        level_boxes = np.array([box for box, _ in kept]).reshape(-1, 4)
        level_scores = np.array([score for _, score in kept])
        for i in _nms(level_boxes, level_scores, 0.7):
            boxes.append(level_boxes[i])
            scores.append(level_scores[i])
    order = np.argsort(-np.array(scores), kind="stable")[:max_per_img]
    return np.array(boxes)[order], np.array(scores)[order]


def level(roi_xyxy: np.ndarray, levels: int) -> int:
    """`SingleRoIExtractor.map_roi_levels` in float32; 0 is the finest."""
    x0, y0, x1, y1 = (np.float32(v) for v in roi_xyxy)
    scale = np.sqrt((x1 - x0) * (y1 - y0))
    ratio = np.float32(scale / np.float32(56)) + np.float32(1e-6)
    return min(max(math.floor(np.float32(math.log2(ratio))), 0), levels - 1)


def detections(
    logits: np.ndarray,
    deltas: np.ndarray,
    rois: np.ndarray,
    image_hw: tuple[int, int],
    score_thr: float = 0.05,
    max_per_img: int = 100,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`BBoxHead` and `multiclass_nms` for one image: boxes, scores, labels, best first.

    Args:
        logits: [R, C + 1], the background last.
        deltas: [R, 4 * C], or [R, 4] of a class-agnostic head.
        rois: [R, 4] xyxy.
    """
    results = []
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    for label in range(logits.shape[1] - 1):
        rows = np.flatnonzero(probabilities[:, label] > score_thr)
        start = 0 if deltas.shape[1] == 4 else 4 * label
        boxes = np.array(
            [
                decode(rois[r], deltas[r, start : start + 4], (0.1, 0.1, 0.2, 0.2), image_hw)
                for r in rows
            ]
        ).reshape(-1, 4)
        scores = probabilities[rows, label]
        results += [(scores[i], label, boxes[i]) for i in _nms(boxes, scores, 0.5)]
    results.sort(key=lambda row: -row[0])
    results = results[:max_per_img]
    return (
        np.array([box for _, _, box in results]).reshape(-1, 4),
        np.array([score for score, _, _ in results]),
        np.array([label for _, label, _ in results], dtype=np.int64),
    )
