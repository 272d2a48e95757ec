"""scikit-image's bilinear resize with zeros around the image, pixel by pixel. Imports nothing.

`skimage.transform.resize(order=1, mode="constant", cval=0, anti_aliasing=False)`: half-pixel
centers, linear weights, zeros outside the image, and the result is clipped to the input's range.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def resize(
    image: NDArray[np.generic], hw: tuple[int, int], whole: NDArray[np.generic] | None = None
) -> NDArray[np.float64]:
    """[h, w] to float64 [H, W]; `whole` is the image whose channel this is, for the clip."""
    height, width = image.shape
    source = image.astype(np.float64).tolist()
    limits = image if whole is None else whole
    lowest, highest = float(limits.min()), float(limits.max())
    resized = np.zeros(hw)
    for row in range(hw[0]):
        y = (row + 0.5) * (height / hw[0]) - 0.5
        for column in range(hw[1]):
            x = (column + 0.5) * (width / hw[1]) - 0.5
            total = 0.0
            for j in (0, 1):
                for i in (0, 1):
                    cell_y, cell_x = math.floor(y) + j, math.floor(x) + i
                    if 0 <= cell_y < height and 0 <= cell_x < width:
                        total += source[cell_y][cell_x] * _weight(y, j) * _weight(x, i)
            resized[row, column] = min(max(total, lowest), highest)
    return resized


def _weight(position: float, tap: int) -> float:
    first = 1.0 - (position - math.floor(position))
    return first if tap == 0 else 1.0 - first
