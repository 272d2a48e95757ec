"""Rotates a video's frames by their display matrix, as players do."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from model.arrays import UInt8


def upright(frame: Any) -> UInt8:
    """A decoded frame of PyAV as uint8 [h, w, 3] RGB, rotated by its display matrix.

    A rotation is rounded to a multiple of 90 degrees; pixels that are not square stay so.
    """
    pixels: UInt8 = frame.to_ndarray(format="rgb24")
    matrix = next((bytes(d) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None)
    return pixels if matrix is None else rotate(pixels, matrix)


def rotate(pixels: UInt8, matrix: bytes) -> UInt8:
    """Apply a display matrix of 9 native int32: x' = a x + c y, y' = b x + d y.

    Source: libavutil/display.h; ISO/IEC 14496-12, 6.2.2.
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
