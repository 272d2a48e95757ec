"""Matterport's Mask R-CNN without its convolutions, in slow, obvious NumPy.

Written from the published definition (`mrcnn/model.py`, `mrcnn/utils.py`), because the original no
longer runs. Imports nothing of the project. Boxes are y1, x1, y2, x2 as there: in pixels, or
normalized, where the canvas's corner pixels are 0 and 1 and a box ends a pixel early.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.oracles.skimage_bilinear import resize

Floats = NDArray[np.float64]
STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])
STRIDES = (4, 8, 16, 32, 64)
SCALES = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)  # width over height
PRE_NMS, RPN_NMS, PROPOSALS = 6000, 0.7, 1000


@dataclass(frozen=True)
class Molded:
    """A photo on its canvas: its resized size, and the window y1, x1, y2, x2 in pixels."""

    hw: tuple[int, int]
    window: tuple[int, int, int, int]


def mold(photo_hw: tuple[int, int], min_dim: int, max_dim: int) -> Molded:
    """`resize_image` in mode "square"."""
    height, width = photo_hw
    scale = max(1, min_dim / min(height, width))
    if round(max(height, width) * scale) > max_dim:
        scale = max_dim / max(height, width)
    height, width = round(height * scale), round(width * scale)
    top, left = (max_dim - height) // 2, (max_dim - width) // 2
    return Molded((height, width), (top, left, top + height, left + width))


def normalize(boxes: Floats, hw: tuple[int, int]) -> Floats:
    """`norm_boxes`."""
    scale = np.array([hw[0] - 1, hw[1] - 1, hw[0] - 1, hw[1] - 1])
    return (boxes - np.array([0, 0, 1, 1])) / scale


def anchors(side: int) -> Floats:
    """`generate_pyramid_anchors` on a square canvas, normalized, [n, 4]."""
    boxes = []
    for stride, scale in zip(STRIDES, SCALES, strict=True):
        for row in range(math.ceil(side / stride)):
            for column in range(math.ceil(side / stride)):
                for ratio in RATIOS:
                    height, width = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
                    y, x = row * stride, column * stride
                    box = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
                    boxes.append(box)
    return normalize(np.array(boxes), (side, side))


def apply_deltas(boxes: Floats, deltas: Floats) -> Floats:
    """`apply_box_deltas_graph`."""
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    y, x = boxes[:, 0] + 0.5 * height, boxes[:, 1] + 0.5 * width
    y, x = y + deltas[:, 0] * height, x + deltas[:, 1] * width
    height, width = height * np.exp(deltas[:, 2]), width * np.exp(deltas[:, 3])
    y1, x1 = y - 0.5 * height, x - 0.5 * width
    return np.stack([y1, x1, y1 + height, x1 + width], axis=1)


def clip(boxes: Floats, window: Floats) -> Floats:
    """`clip_boxes_graph`."""
    y, x = boxes[:, 0::2], boxes[:, 1::2]
    y = np.maximum(np.minimum(y, window[2]), window[0])
    x = np.maximum(np.minimum(x, window[3]), window[1])
    return np.stack([y[:, 0], x[:, 0], y[:, 1], x[:, 1]], axis=1)


def suppress(boxes: Floats, scores: Floats, most: int, limit: float) -> list[int]:
    """`tf.image.non_max_suppression`: indices of the kept boxes, best first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if len(kept) == most:
            break
        others = np.array(kept, dtype=np.int64)
        end = np.minimum(boxes[others, 2:], boxes[index, 2:])
        sides = np.maximum(end - np.maximum(boxes[others, :2], boxes[index, :2]), 0)
        shared = sides.prod(axis=1)
        union = areas[others] + areas[index] - shared
        empty = (areas[others] <= 0) | (areas[index] <= 0)
        if not (np.where(empty, 0.0, shared / np.where(empty, 1.0, union)) > limit).any():
            kept.append(index)
    return kept


def proposals(foreground: Floats, deltas: Floats, side: int) -> Floats:
    """`ProposalLayer`: normalized boxes, best first, without its zero padding.

    `foreground` is [n], monotonic in the probability; `deltas` [n, 4].
    """
    best = np.argsort(-foreground, kind="stable")[:PRE_NMS]
    boxes = apply_deltas(anchors(side)[best], deltas[best] * STD_DEV)
    boxes = clip(boxes, np.array([0.0, 0.0, 1.0, 1.0]))
    return boxes[suppress(boxes, foreground[best], PROPOSALS, RPN_NMS)]


def level(box: Floats, side: int, canonical: float = 224.0) -> int:
    """The level of `PyramidROIAlign` for a normalized box, 2 to 5."""
    height, width = box[2] - box[0], box[3] - box[1]
    if height * width <= 0:
        return 2
    exact = math.log2(math.sqrt(height * width) / (canonical / math.sqrt(side * side)))
    return min(5, max(2, 4 + round(exact)))


def crop_and_resize(feature: NDArray[np.float32], box: Floats, size: int) -> Floats:
    """`tf.image.crop_and_resize`, bilinear, of a [C, H, W] feature map to [C, size, size].

    Points on the map's edge are inside. In TensorFlow's float32 the last point of a box that ends
    there may round to just outside, which gives 0 in some boxes and not in others.
    """
    channels, height, width = feature.shape
    crop = np.zeros((channels, size, size))
    for row in range(size):
        y = _position(box[0], box[2], height, row, size)
        for column in range(size):
            x = _position(box[1], box[3], width, column, size)
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                crop[:, row, column] = _bilinear(feature, y, x)
    return crop


def _position(start: float, end: float, cells: int, index: int, size: int) -> float:
    if size == 1:
        return 0.5 * (start + end) * (cells - 1)
    exact = float(start * (cells - 1) + index * (end - start) * (cells - 1) / (size - 1))
    return min(exact, cells - 1) if exact < cells - 1 + 1e-6 else exact


def _bilinear(feature: NDArray[np.float32], y: float, x: float) -> Floats:
    top, left = math.floor(y), math.floor(x)
    bottom, right = math.ceil(y), math.ceil(x)
    upper = feature[:, top, left] + (feature[:, top, right] - feature[:, top, left]) * (x - left)
    lower = feature[:, bottom, left] + (feature[:, bottom, right] - feature[:, bottom, left]) * (
        x - left
    )
    result: Floats = upper + (lower - upper) * (y - top)
    return result


@dataclass(frozen=True)
class Detections:
    """Rows of the detection layer: normalized boxes [D, 4], classes, scores, proposal indices."""

    boxes: Floats
    classes: NDArray[np.int64]
    scores: Floats
    rows: NDArray[np.int64]


def detections(
    rois: Floats,
    probs: Floats,
    deltas: Floats,
    window: Floats,
    min_confidence: float = 0.7,
    nms: float = 0.3,
    most: int = 100,
) -> Detections:
    """`refine_detections_graph`: rois [R, 4], probs [R, C], deltas [R, C, 4], window normalized."""
    indices = np.arange(len(rois))
    classes = probs.argmax(axis=1)
    scores = probs[indices, classes]
    boxes = clip(apply_deltas(rois, deltas[indices, classes] * STD_DEV), window)
    keep = (classes > 0) & (scores >= min_confidence)
    kept: list[int] = []
    for label in np.unique(classes[keep]):
        rows = np.flatnonzero(keep & (classes == label))
        kept += rows[suppress(boxes[rows], scores[rows], most, nms)].tolist()
    order = np.array(sorted(kept, key=lambda row: -scores[row])[:most], dtype=np.int64)
    return Detections(boxes[order], classes[order], scores[order], order)


def unmold(
    boxes: Floats, photo_hw: tuple[int, int], molded: Molded, side: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """`unmold_detections`: boxes in whole pixels of the photo, and which of them are not empty."""
    y1, x1, y2, x2 = normalize(np.array(molded.window), (side, side))
    inside = (boxes - np.array([y1, x1, y1, x1])) / np.array([y2 - y1, x2 - x1] * 2)
    scale = np.array([photo_hw[0] - 1, photo_hw[1] - 1] * 2)
    pixels = np.around(inside * scale + np.array([0, 0, 1, 1])).astype(np.int32)
    area = (pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])
    return pixels, area > 0


def paste(
    mask: NDArray[np.float32], box: NDArray[np.int32], photo_hw: tuple[int, int]
) -> NDArray[np.bool_]:
    """`unmold_mask`: the mask resized to its box, at least 0.5."""
    y1, x1, y2, x2 = box.tolist()
    full = np.zeros(photo_hw, np.bool_)
    full[y1:y2, x1:x2] = resize(mask, (y2 - y1, x2 - x1)).astype(np.float32) >= 0.5
    return full
