"""The pooling operators as slow, obvious loops in float64.

All take a map [C, H, W] and a RoI xyxy in image pixels, and return [C, P, P]. RoIAlign's average is
in `roi_align`. Where a library's float32 rounding decides the cell of an edge, it is used here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tests.oracles.roi_align import bilinear

# For samples exactly on a limit; no others are so close.
_TINY = 1e-9


def float32_error(features: Sequence[npt.ArrayLike]) -> float:
    """How far sampling in float32 may be from loops in float64, or from another order of its sums.

    A position in cells is rounded some four times, by 2**-24 of the canvas each; the steepest
    slope between neighboring cells makes a difference in value of it, along both axes. To that
    come the roundings of sixteen products.
    """
    maps = [np.asarray(feature) for feature in features]
    cells = sum(sum(m.shape[-2:]) for m in maps)
    steps = [np.abs(np.diff(m, axis=axis)).max(initial=0) for m in maps for axis in (-2, -1)]
    largest = max(float(np.abs(m).max()) for m in maps)
    return cells * 2.0**-22 * float(max(steps)) + 16 * 2.0**-24 * largest


def c_round(value: float) -> int:
    """Halves away from zero, as C's `round`."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def adaptive_counts(
    roi_xyxy: np.ndarray, output_size: int, stride: float, aligned: bool
) -> tuple[int, int]:
    """Samples of a bin along y and x of adaptive RoIAlign."""
    x0, y0, x1, y1 = (float(v) / stride for v in roi_xyxy)
    smallest = 0.0 if aligned else 1.0
    sides = max(y1 - y0, smallest), max(x1 - x0, smallest)
    count_y, count_x = (max(math.ceil(side / output_size), 0) for side in sides)
    return count_y, count_x


def roi_align(
    feature: np.ndarray,
    roi_xyxy: np.ndarray,
    output_size: int,
    stride: float,
    aligned: bool,
    parts_yx: tuple[Sequence[float], Sequence[float]],
    reduce: str,
) -> np.ndarray:
    """RoIAlign with samples at `parts_yx` of a bin's sides, in (0, 1)."""
    shift = 0.5 if aligned else 0.0
    x0, y0, x1, y1 = (float(v) / stride - shift for v in roi_xyxy)
    height, width = y1 - y0, x1 - x0
    if not aligned:
        height, width = max(height, 1.0), max(width, 1.0)
    return _sampled(feature, (y0, x0, height, width), output_size, parts_yx, reduce)


def roi_warp(
    feature: np.ndarray,
    roi_xyxy: np.ndarray,
    output_size: int,
    stride: float,
    aligned: bool,
    ratio: int,
    reduce: str,
    quantise: str,
    placement: str = "centred",
) -> np.ndarray:
    """The RoI covers whole cells; its bins are sampled as in RoIAlign."""
    (y0, height), (x0, width) = (
        _whole_cells(roi_xyxy[axis], roi_xyxy[axis + 2], stride, quantise) for axis in (1, 0)
    )
    shift = 0.5 if aligned else 0.0
    parts = sample_parts(ratio, placement)
    frame = (y0 - shift, x0 - shift, float(height), float(width))
    return _sampled(feature, frame, output_size, (parts, parts), reduce)


def roi_pool(
    feature: np.ndarray, roi_xyxy: np.ndarray, output_size: int, stride: float, quantise: str
) -> np.ndarray:
    """The largest of a bin's cells; 0 for a bin without cells."""
    (y0, height), (x0, width) = (
        _whole_cells(roi_xyxy[axis], roi_xyxy[axis + 2], stride, quantise) for axis in (1, 0)
    )
    pooled = np.zeros((feature.shape[0], output_size, output_size))
    for row in range(output_size):
        for column in range(output_size):
            top, bottom = _bin_cells(row, height, output_size, quantise)
            left, right = _bin_cells(column, width, output_size, quantise)
            ys = [y for y in range(y0 + top, y0 + bottom) if 0 <= y < feature.shape[1]]
            xs = [x for x in range(x0 + left, x0 + right) if 0 <= x < feature.shape[2]]
            if ys and xs:
                pooled[:, row, column] = feature[:, ys][:, :, xs].max(axis=(1, 2))
    return pooled


def _whole_cells(low: float, high: float, stride: float, quantise: str) -> tuple[int, int]:
    """First cell and number of cells."""
    if quantise == "floor":
        first = math.floor(low / stride)
        return first, max(math.floor(high / stride) - first, 1)
    first = c_round(low / stride)
    return first, max(c_round(high / stride) - first + 1, 1)


def _bin_cells(index: int, cells: int, output_size: int, quantise: str) -> tuple[int, int]:
    """First cell of a bin and the one after its last, counted from the RoI's first cell."""
    if quantise == "floor":
        step = max(cells // output_size, 1)
        return index * step, (index + 1) * step
    step = np.float32(cells) / np.float32(output_size)
    return math.floor(np.float32(index) * step), math.ceil(np.float32(index + 1) * step)


def crop_and_resize(
    feature: np.ndarray,
    roi_xyxy: np.ndarray,
    output_size: int,
    stride: float,
    ratio: int,
    frame: str,
) -> np.ndarray:
    """Points from corner to corner; with ratio 2 the largest of 2 x 2."""
    count = output_size * ratio
    ys, xs = (
        _points(roi_xyxy[a], roi_xyxy[a + 2], feature.shape[2 - a], stride, count, frame)
        for a in (1, 0)
    )
    points = np.zeros((feature.shape[0], count, count))
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            inside_y = -_TINY <= y <= feature.shape[1] - 1 + _TINY
            if inside_y and -_TINY <= x <= feature.shape[2] - 1 + _TINY:
                points[:, row, column] = bilinear(feature, y, x)
    groups = points.reshape(feature.shape[0], output_size, ratio, output_size, ratio)
    return groups.max(axis=(2, 4))


def _points(
    low: float, high: float, cells: int, stride: float, count: int, frame: str
) -> list[float]:
    scale = 1.0 / stride if frame == "stride" else (cells - 1) / (cells * stride - 1)
    low, high = float(low) * scale, float(high) * scale
    if count == 1:
        return [(low + high) / 2]
    return [low + i * (high - low) / (count - 1) for i in range(count)]


def prroi_pool(
    feature: np.ndarray, roi_xyxy: np.ndarray, output_size: int, stride: float, aligned: bool
) -> np.ndarray:
    """The mean over each bin of the map interpolated by tents of height 1 and width 2."""
    shift = 0.5 if aligned else 0.0
    x0, y0, x1, y1 = (float(v) / stride - shift for v in roi_xyxy)
    height, width = (y1 - y0) / output_size, (x1 - x0) / output_size
    pooled = np.zeros((feature.shape[0], output_size, output_size))
    if height <= 0 or width <= 0:
        return pooled
    for row in range(output_size):
        for column in range(output_size):
            top, left = y0 + row * height, x0 + column * width
            down = [_tent(k, top, top + height) for k in range(feature.shape[1])]
            along = [_tent(k, left, left + width) for k in range(feature.shape[2])]
            total = np.einsum("chw,h,w->c", feature, down, along)
            pooled[:, row, column] = total / (height * width)
    return pooled


def _tent(center: int, low: float, high: float) -> float:
    """Integral of max(1 - |t - center|, 0) from low to high: a trapezium on each slope."""
    total = 0.0
    for left, right in ((center - 1, center), (center, center + 1)):
        a, b = max(low, left), min(high, right)
        if b > a:
            total += (b - a) * (1 - abs((a + b) / 2 - center))
    return total


def sample_parts(ratio: int, placement: str) -> list[float]:
    """Positions of `ratio` samples along a bin of length 1."""
    if placement == "even":
        return [(i + 1) / (ratio + 1) for i in range(ratio)]
    return [(i + 0.5) / ratio for i in range(ratio)]


def _sampled(
    feature: np.ndarray,
    frame: tuple[float, float, float, float],
    output_size: int,
    parts_yx: tuple[Sequence[float], Sequence[float]],
    reduce: str,
) -> np.ndarray:
    y0, x0, height, width = frame
    combine: Callable[..., np.ndarray] = {"average": np.mean, "max": np.max}[reduce]
    pooled = np.zeros((feature.shape[0], output_size, output_size))
    for row in range(output_size):
        for column in range(output_size):
            samples = [
                _on_level(
                    feature,
                    y0 + (row + part_y) * height / output_size,
                    x0 + (column + part_x) * width / output_size,
                )
                for part_y in parts_yx[0]
                for part_x in parts_yx[1]
            ]
            if samples:
                pooled[:, row, column] = combine(samples, axis=0)
    return pooled


def _on_level(feature: np.ndarray, y: float, x: float) -> np.ndarray:
    """`bilinear`, but samples on the limit are inside despite rounding."""
    limits = [(y, feature.shape[1]), (x, feature.shape[2])]
    y, x = (min(max(v, -1.0), s) if -1 - _TINY <= v <= s + _TINY else v for v, s in limits)
    return bilinear(feature, y, x)
