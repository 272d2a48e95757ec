"""Pasting one mask, pixel by pixel, in float64: slow and obvious. Imports nothing of the project.

Results are probabilities, float64 [H, W], without a threshold.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def paste_integer(
    mask: NDArray[np.float32], box_xyxy: NDArray[np.float32], image_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """Torchvision's rule: pad by one cell, expand the box, truncate it, resize bilinearly."""
    side = mask.shape[0]
    padded = np.pad(mask.astype(np.float64), 1)
    x0, y0, x1, y1 = _expanded_box(box_xyxy, side)
    width, height = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
    image = np.zeros(image_hw)
    for y in range(max(y0, 0), min(y1 + 1, image_hw[0])):
        for x in range(max(x0, 0), min(x1 + 1, image_hw[1])):
            source_x = max((x - x0 + 0.5) * (side + 2) / width - 0.5, 0.0)
            source_y = max((y - y0 + 0.5) * (side + 2) / height - 0.5, 0.0)
            image[y, x] = _bilinear(padded, source_x, source_y)
    return image


def paste_float(
    mask: NDArray[np.float32], box_xyxy: NDArray[np.float32], image_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """detectron2's rule: sample at pixel centers of the box and one pixel around it."""
    side = mask.shape[0]
    x0, y0, x1, y1 = box_xyxy.astype(np.float64).tolist()
    image = np.zeros(image_hw)
    for y in range(max(math.floor(y0) - 1, 0), min(math.ceil(y1) + 1, image_hw[0])):
        for x in range(max(math.floor(x0) - 1, 0), min(math.ceil(x1) + 1, image_hw[1])):
            source_x = (x + 0.5 - x0) / (x1 - x0) * side - 0.5
            source_y = (y + 0.5 - y0) / (y1 - y0) * side - 0.5
            image[y, x] = _bilinear(mask.astype(np.float64), source_x, source_y)
    return image


def _expanded_box(box_xyxy: NDArray[np.float32], side: int) -> list[int]:
    # In float32 as in torchvision, because truncation can turn rounding into a whole pixel.
    x0, y0, x1, y1 = box_xyxy
    half, scale = np.float32(0.5), np.float32((side + 2) / side)
    half_width, half_height = (x1 - x0) * half * scale, (y1 - y0) * half * scale
    center_x, center_y = (x1 + x0) * half, (y1 + y0) * half
    expanded = (
        center_x - half_width,
        center_y - half_height,
        center_x + half_width,
        center_y + half_height,
    )
    return [int(value) for value in expanded]


def _bilinear(grid: NDArray[np.float64], x: float, y: float) -> float:
    """`grid` at a continuous index, zero for every cell outside it."""
    left, top = math.floor(x), math.floor(y)
    total = 0.0
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]:
                total += weight_y * weight_x * float(grid[row, column])
    return total
