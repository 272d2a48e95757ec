"""torch's bilinear resize without antialiasing, row by row: it makes no float copy of a photo.

In C, or in NumPy for packages that were built without a compiler; the results are equal to the bit.
`bench/resize.py` times both.

Legend: h, w sides of a photo; H, W sides of the resized one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.arrays import Float32, UInt8
from runtime.sources.pixel_format import Scaled

try:
    from runtime.preprocessing import _bilinear

    IS_COMPILED = True
except ImportError:  # built without a compiler; `maskport doctor` reports it
    IS_COMPILED = False

Indices = npt.NDArray[np.intp]


def resize_into(
    resized: Float32, photo: Scaled, channels: Sequence[int] = (0, 1, 2), scale: float = 1.0
) -> None:
    """Resize into existing memory.

    Rows are interpolated first, then columns, with the weights of torch's kernel, which does it the
    other way round: results differ by float32's rounding, at most 3e-7 of the value range.

    Args:
        resized: float32 [C, H, W], filled.
        photo: uint8 or float32 [h, w, bands].
        channels: the photo's channel of each plane.
        scale: factor of all pixels.

    Source: torch `interpolate(mode="bilinear", align_corners=False)`, with its index arithmetic.
    """
    # The kernel has loops for three channels of bytes.
    if IS_COMPILED and len(channels) == photo.shape[2] == 3 and photo.dtype == np.uint8:
        resize_c(resized, photo, channels, scale)  # type: ignore[arg-type]
    else:
        resize_numpy(resized, photo, channels, scale)


def resize_c(resized: Float32, photo: UInt8, channels: Sequence[int], scale: float) -> None:
    """`resize_into` with the C kernel, which releases the interpreter's lock."""
    left, right, near = taps(photo.shape[1], resized.shape[2])
    top, bottom, low = taps(photo.shape[0], resized.shape[1])
    channel = np.array(channels)[:, None]
    _bilinear.resize(
        resized,
        np.ascontiguousarray(photo).reshape(photo.shape[0], -1),
        top.astype(np.int32),
        bottom.astype(np.int32),
        low,
        (3 * left + channel).astype(np.int32),
        (3 * right + channel).astype(np.int32),
        _column_weights(near, scale),
    )


def resize_numpy(resized: Float32, photo: Scaled, channels: Sequence[int], scale: float) -> None:
    """`resize_into` in NumPy."""
    left, right, near = taps(photo.shape[1], resized.shape[2])
    weights = _column_weights(near, scale)[:, :, None]
    rows = zip(*taps(photo.shape[0], resized.shape[1]), strict=True)
    for y, (top, bottom, low) in enumerate(rows):
        upper = photo[top].astype(np.float32)
        mixed = upper + (photo[bottom].astype(np.float32) - upper) * low  # [w, bands]
        line = mixed[left] * weights[0] + mixed[right] * weights[1]  # [W, bands]
        resized[:, y] = line[:, list(channels)].T


def _column_weights(near: Float32, scale: float) -> Float32:
    """Weights of the left and the right column, float32 [2, W], times the scale."""
    return np.stack(((1 - near) * np.float32(scale), near * np.float32(scale)))


def taps(source: int, target: int) -> tuple[Indices, Indices, Float32]:
    """The two source indices of every target index, [target] each, and the weight of the second."""
    scale = np.float32(source) / np.float32(target)
    # torch's kernels fuse this product and difference, so that they are rounded once; rounded
    # twice, pixels of a 640 wide photo change by up to 0.007 of 255.
    center = (np.float64(scale) * (np.arange(target) + 0.5) - 0.5).astype(np.float32)
    center = np.maximum(center, np.float32(0.0))
    first = center.astype(np.intp)
    second = np.minimum(first + 1, source - 1)
    return first, second, center - first.astype(np.float32)
