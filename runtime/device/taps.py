"""Source pixels and weights of every target pixel, as host tables per axis.

They depend on sizes only, so they are computed once per size and uploaded.

Legend: n target pixels of an axis, K taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from model.arrays import Int64
from runtime.preprocessing import skimage_bilinear, torch_bilinear
from runtime.preprocessing.opencv_bilinear import neighbors

PILLOW_BITS = 22  # of a weight: 32, less 8 of a pixel, less 2 of the sum
OPENCV_ONE = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """int64 [K, n] source pixels, and their weights [K, n] in the dtype of the sum."""

    index: Int64
    weight: npt.NDArray[Any]


def torchvision(source: int, target: int) -> Taps:
    """Two float32 taps; see `runtime.preprocessing.torch_bilinear`."""
    first, second, near = torch_bilinear.taps(source, target)
    return Taps(np.stack([first, second]).astype(np.int64), np.stack([1 - near, near]))


def opencv(source: int, target: int) -> Taps:
    """Two int32 taps; see `runtime.preprocessing.opencv_bilinear`."""
    first, near = neighbors(source, target)
    index = np.clip(np.stack([first, first + 1]), 0, source - 1)
    return Taps(index.astype(np.int64), np.stack([OPENCV_ONE - near, near]).astype(np.int32))


def skimage(source: int, target: int) -> Taps:
    """Two float64 taps; pixels beyond the image have weight 0."""
    before, upper = skimage_bilinear.taps(np.arange(target), source, target)
    index = np.stack([before, before + 1])
    weight = np.stack([1.0 - upper, 1.0 - (1.0 - upper)])
    inside = (index >= 0) & (index < source)
    return Taps(np.clip(index, 0, source - 1), np.where(inside, weight, 0.0))


def pillow_goes_down_first(source_hw: tuple[int, int], target_hw: tuple[int, int]) -> bool:
    """Whether Pillow's vertical pass comes first; each pass rounds to bytes.

    Source: measured with Pillow 13.0: first if it removes more than twice as many rows as columns.
    Earlier versions always start with the horizontal pass.
    """
    if int(PIL.__version__.split(".")[0]) < 13:
        return False
    removed, across = source_hw[0] - target_hw[0], source_hw[1] - target_hw[1]
    return removed > 0 and removed > 2 * across


def pillow(source: int, target: int) -> Taps:
    """Pillow's antialiasing bilinear taps in 22 bits, int32.

    Source: Pillow `Resample.c`: `precompute_coeffs` and `normalize_coeffs_8bpc`, in their order of
    operations in double precision.
    """
    scale = source / target
    reach = max(scale, 1.0)  # of the triangle, whose support is 1
    size = math.ceil(reach) * 2 + 1
    center = (np.arange(target) + 0.5) * scale
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((center + reach + 0.5).astype(np.int64), source)
    index = first + np.arange(size)[:, None]  # [K, n]
    distance = np.abs((index - center + 0.5) * (1.0 / reach))
    weight = np.where((index < end) & (distance < 1.0), 1.0 - distance, 0.0)
    total = np.zeros(target)
    for row in weight:  # sequentially, in Pillow's order
        total += row
    weight /= np.where(total == 0.0, 1.0, total)
    fixed = np.trunc(0.5 + weight * (1 << PILLOW_BITS)).astype(np.int32)
    used = fixed.any(axis=1)
    return Taps(np.minimum(index, source - 1)[used], fixed[used])
