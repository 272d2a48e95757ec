"""Heat maps to keypoints as slow, obvious loops in float64.

The definition: resize each map to ceil(width) x ceil(height) of its box by Keys' cubic convolution
with A = -0.75, half-pixel centers and edge samples repeated; take the largest pixel, the first of
equal ones in row order; its center, scaled to the box, is the keypoint.
"""

from __future__ import annotations

import math

import numpy as np


def cubic_weight(distance: float) -> float:
    """Keys' kernel with A = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


def resized_row(samples: np.ndarray, count: int) -> np.ndarray:
    """[..., S] to [..., count]."""
    side = samples.shape[-1]
    resized = np.zeros((*samples.shape[:-1], count))
    for i in range(count):
        source = (i + 0.5) * side / count - 0.5
        for k in range(math.floor(source) - 1, math.floor(source) + 3):
            resized[..., i] += cubic_weight(source - k) * samples[..., min(max(k, 0), side - 1)]
    return resized


def resized_map(heatmap: np.ndarray, height: int, width: int) -> np.ndarray:
    """[S, S] to [height, width]."""
    wide = resized_row(heatmap.astype(np.float64), width)
    return resized_row(wide.T, height).T


def keypoint(heatmap: np.ndarray, box_xyxy: np.ndarray) -> tuple[float, float, float, float]:
    """X, y, the peak of the resized map, and its probability in the softmax of the map."""
    x0, y0, x1, y1 = (np.float32(v) for v in box_xyxy)
    # In float32 as in the eager models, because a side is rounded up to whole pixels.
    width, height = float(max(x1 - x0, 1)), float(max(y1 - y0, 1))
    resized = resized_map(heatmap, math.ceil(height), math.ceil(width))
    row, column = divmod(int(resized.argmax()), math.ceil(width))
    x = float(x0) + (column + 0.5) * width / math.ceil(width)
    y = float(y0) + (row + 0.5) * height / math.ceil(height)
    peak, highest = float(resized.max()), float(heatmap.max())
    probability = math.exp(peak - highest) / np.exp(heatmap.astype(np.float64) - highest).sum()
    return x, y, peak, float(probability)


def margin(heatmap: np.ndarray, box_xyxy: np.ndarray, beyond_px: float) -> float:
    """The peak minus the largest pixel of the resized map that is farther away than `beyond_px`."""
    x0, y0, x1, y1 = (np.float32(v) for v in box_xyxy)
    height, width = math.ceil(max(y1 - y0, 1)), math.ceil(max(x1 - x0, 1))
    resized = resized_map(heatmap, height, width)
    row, column = divmod(int(resized.argmax()), width)
    y, x = np.mgrid[:height, :width]
    far = np.hypot(y - row, x - column) > beyond_px
    return float(resized.max() - resized[far].max()) if far.any() else math.inf
