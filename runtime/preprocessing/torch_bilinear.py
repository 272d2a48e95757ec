"""torch's bilinear resize without antialiasing, in strips: it makes no float copy of a photo.

In C, a third of the time (`bench/resize.py`), or in NumPy, for packages that were built without a
compiler; the results are equal to the bit.

Legend: h, w sides of a photo; H, W sides of the resized one; n rows of a strip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.arrays import Float32, UInt8

try:
    from runtime.preprocessing import _bilinear

    IS_COMPILED = True
except ImportError:  # built without a compiler; `maskport doctor` reports it
    IS_COMPILED = False

Indices = npt.NDArray[np.intp]

# Rows of a strip: its part of a photo 2,000 pixels wide then stays in the processor's cache.
_STRIP_ROWS = 16


def bilinear(photo: UInt8, hw: tuple[int, int]) -> Float32:
    """Resize with half-pixel centers and no antialiasing.

    Args:
        photo: uint8 [h, w, 3].
        hw: H and W.

    Returns:
        float32 [3, H, W], in the photo's channels and value range.
    """
    resized = np.empty((3, *hw), np.float32)
    resize_into(resized, photo)
    return resized


def resize_into(
    resized: Float32, photo: UInt8, channels: Sequence[int] = (0, 1, 2), scale: float = 1.0
) -> None:
    """Resize into existing memory.

    Rows are interpolated first, then columns, with the weights of torch's kernel, which does it the
    other way round: results differ by float32's rounding, at most 3e-7 of the value range.

    Args:
        resized: float32 [3, H, W], filled.
        photo: uint8 [h, w, 3].
        channels: the photo's channel of each plane.
        scale: factor of all pixels.

    Source: torch `interpolate(mode="bilinear", align_corners=False)`, with its index arithmetic.
    """
    resize = resize_c if IS_COMPILED else resize_numpy
    resize(resized, photo, channels, scale)


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
        np.stack(_column_weights(near, scale)),
    )


def resize_numpy(resized: Float32, photo: UInt8, channels: Sequence[int], scale: float) -> None:
    """`resize_into` with NumPy's loops."""
    height, width = resized.shape[1:]
    left, right, near = taps(photo.shape[1], width)
    top, bottom, low = taps(photo.shape[0], height)
    rows = np.ascontiguousarray(photo).reshape(photo.shape[0], -1)  # [h, 3 w]
    columns = [(3 * left + channel, 3 * right + channel) for channel in channels]
    weights = _column_weights(near, scale)
    strip = min(_STRIP_ROWS, height)
    upper, lower = (np.empty((strip, rows.shape[1]), np.float32) for _ in range(2))
    first, second = (np.empty((strip, width), np.float32) for _ in range(2))
    for start in range(0, height, strip):
        part = slice(start, min(start + strip, height))
        n = part.stop - part.start
        mixed = _mix_rows(rows, top[part], bottom[part], low[part, None], upper[:n], lower[:n])
        for plane, (at_left, at_right) in zip(resized, columns, strict=True):
            # "clip" skips the bounds check; taps() returns no index outside.
            mixed.take(at_left, axis=1, out=first[:n], mode="clip")
            mixed.take(at_right, axis=1, out=second[:n], mode="clip")
            np.multiply(first[:n], weights[0], out=plane[part])
            second[:n] *= weights[1]
            plane[part] += second[:n]


def _column_weights(near: Float32, scale: float) -> tuple[Float32, Float32]:
    """Weights of the left and the right column, times the scale."""
    return (1 - near) * np.float32(scale), near * np.float32(scale)


def _mix_rows(
    rows: UInt8, top: Indices, bottom: Indices, low: Float32, upper: Float32, lower: Float32
) -> Float32:
    """The strip's rows, float32 [n, 3 w]; `upper` and `lower` are scratch memory."""
    np.copyto(upper, rows[top])
    np.copyto(lower, rows[bottom])
    lower -= upper
    lower *= low
    upper += lower
    return upper


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
