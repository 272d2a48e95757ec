"""A video's frames, turned as its player would turn them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt


def upright(frame: Any) -> npt.NDArray[np.uint8]:
    """A decoded frame of PyAV as uint8 [h, w, 3] RGB, by its display matrix.

    Of a matrix that turns by something else than quarters the nearest quarter is taken; that the
    pixels of some videos are not square is not undone.
    """
    pixels: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    matrix = next((bytes(d) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None)
    return pixels if matrix is None else turned(pixels, matrix)


def turned(pixels: npt.NDArray[np.uint8], matrix: bytes) -> npt.NDArray[np.uint8]:
    """Apply a display matrix: 9 native int32, of which a point's x' = a x + c y, y' = b x + d y.

    Source: libavutil/display.h; ISO/IEC 14496-12, 6.2.2 (where an image's matrix stands).
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.transpose(1, 0, 2)
        x_sign, y_sign = c, b
    else:
        x_sign, y_sign = a, d
    if x_sign < 0:
        pixels = pixels[:, ::-1]
    if y_sign < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
