"""OpenCV's bilinear resize of uint8 images, bit for bit, in NumPy.

OpenCV computes `INTER_LINEAR` of bytes in integers: weights are rounded to 11 bits, and the sums
lose their last bits twice on the way. MMDetection's networks receive the result, which is up to
one step in 255 from the float result.

Legend: h, w sides of a photo; H, W sides of the result, all in pixels.
"""

from __future__ import annotations

import numpy as np

from model.arrays import Int32, UInt8

_ONE = 2048  # of a weight


def resize_uint8(photo: UInt8, hw: tuple[int, int]) -> UInt8:
    """Resize uint8 [h, w, C] to uint8 [H, W, C], `hw` being H and W; no antialiasing.

    Source: OpenCV 4 `resize.cpp`: `HResizeLinear`, and `VResizeLinear` for bytes.
    """
    left, near = neighbors(photo.shape[1], hw[1])
    top, low = neighbors(photo.shape[0], hw[0])
    # OpenCV clips the centers of columns, but only the indices of rows. Beyond an edge both taps
    # are the same pixel, so the results are equal.
    right, bottom = _clipped(left + 1, photo.shape[1]), _clipped(top + 1, photo.shape[0])
    left, top = _clipped(left, photo.shape[1]), _clipped(top, photo.shape[0])
    rows = np.unique(np.concatenate([top, bottom]))  # a large photo has many unread rows
    read = photo.take(rows, axis=0)
    wide = read.take(left, axis=1) * (_ONE - near)[:, None]  # int32 [rows, W, C]
    wide += read.take(right, axis=1) * near[:, None]
    wide >>= 4
    upper = wide.take(np.searchsorted(rows, top), axis=0)
    upper *= (_ONE - low)[:, None, None]
    upper >>= 16
    lower = wide.take(np.searchsorted(rows, bottom), axis=0)
    lower *= low[:, None, None]
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    return upper.astype(np.uint8)


def _clipped(index: Int32, size: int) -> Int32:
    return np.clip(index, 0, size - 1)


def neighbors(source: int, target: int) -> tuple[Int32, Int32]:
    """The first of two source indices of every target index, and the weight of the second."""
    scale = 1.0 / (target / source)  # in this order of divisions
    center = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(center)
    weight = np.rint((center - first) * np.float32(_ONE))
    return first.astype(np.int32), weight.astype(np.int32)
