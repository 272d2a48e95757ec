"""Box arithmetic that both results and postprocessing need."""

from __future__ import annotations

import numpy as np

from model.arrays import Float32


def clipped(boxes_xyxy: Float32, image_hw: tuple[int, int]) -> Float32:
    """Boxes, float32 [D, 4], cut at the borders of the image."""
    height, width = image_hw
    limit = np.array([width, height, width, height], np.float32)
    return np.minimum(np.maximum(boxes_xyxy, np.float32(0)), limit)
