"""RoIAlign and greedy NMS as slow, obvious loops in float64."""

from __future__ import annotations

import math

import numpy as np


def bilinear(feature: np.ndarray, y: float, x: float) -> np.ndarray:
    """Value of a [C, H, W] map at one point: 0 beyond one cell outside, else clamped."""
    height, width = feature.shape[1:]
    if y < -1.0 or y > height or x < -1.0 or x > width:
        return np.zeros(feature.shape[0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    y0, x0 = math.floor(y), math.floor(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    top = feature[:, y0, x0] * (1 - fx) + feature[:, y0, x1] * fx
    bottom = feature[:, y1, x0] * (1 - fx) + feature[:, y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def roi_align(
    feature: np.ndarray,
    roi_xyxy: np.ndarray,
    output_size: int,
    stride: float,
    sampling_ratio: int,
    aligned: bool,
) -> np.ndarray:
    """Average of the samples of each bin, [C, P, P]; the RoI is in image pixels."""
    shift = 0.5 if aligned else 0.0
    x0, y0, x1, y1 = (float(v) / stride - shift for v in roi_xyxy)
    width, height = x1 - x0, y1 - y0
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    bin_h, bin_w = height / output_size, width / output_size
    count_y = sampling_ratio if sampling_ratio > 0 else math.ceil(height / output_size)
    count_x = sampling_ratio if sampling_ratio > 0 else math.ceil(width / output_size)
    pooled = np.zeros((feature.shape[0], output_size, output_size))
    for row in range(output_size):
        for column in range(output_size):
            total = np.zeros(feature.shape[0])
            for i in range(count_y):
                for j in range(count_x):
                    y = y0 + row * bin_h + (i + 0.5) * bin_h / count_y
                    x = x0 + column * bin_w + (j + 0.5) * bin_w / count_x
                    total += bilinear(feature, y, x)
            pooled[:, row, column] = total / max(count_y * count_x, 1)
    return pooled


def pyramid_level(roi_xyxy: np.ndarray, canonical_level: int, canonical_size: float) -> int:
    """k = floor(k0 + log2(sqrt(wh) / s0)), before any clamp."""
    width, height = roi_xyxy[2] - roi_xyxy[0], roi_xyxy[3] - roi_xyxy[1]
    return math.floor(canonical_level + math.log2(math.sqrt(width * height) / canonical_size))


def greedy_nms(
    boxes: np.ndarray, valid: np.ndarray, groups: np.ndarray, limit: float
) -> np.ndarray:
    """Bool [K]: which rows are kept, of boxes that are sorted best first."""
    keep = np.zeros(len(boxes), bool)
    for j in range(len(boxes)):
        if valid[j]:
            rivals = [i for i in range(j) if keep[i] and groups[i] == groups[j]]
            keep[j] = all(iou(boxes[i], boxes[j]) <= limit for i in rivals)
    return keep


def iou(a: np.ndarray, b: np.ndarray) -> np.float32:
    """IoU in float32, as the libraries compute it."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    width = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]))
    height = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]))
    inter = np.float32(width * height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return np.float32(inter / union) if union > 0 else np.float32(0)
