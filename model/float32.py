"""Thresholds for comparisons in float32."""

from __future__ import annotations

import numpy as np


def largest_float32_not_above(value: float) -> float:
    """The float32 threshold that accepts the same float32 IoUs as the float64 `value`.

    torchvision compares a float32 IoU with a float64 limit; 0.3 rounded up to float32 would
    keep a box that torchvision removes.
    """
    rounded = np.float32(value)
    if float(rounded) > value:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return float(rounded)
