"""Box arithmetic that both results and postprocessing need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]


def clipped(boxes_xyxy: Float32Array, image_hw: tuple[int, int]) -> Float32Array:
    """Boxes, float32 [D, 4], cut at the borders of the image."""
    height, width = image_hw
    limit = np.array([width, height, width, height], np.float32)
    return np.minimum(np.maximum(boxes_xyxy, np.float32(0)), limit)
