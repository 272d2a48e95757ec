"""Polygons as slow, obvious loops: the pixels inside a set of rings, and a mask's parts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def rasterize(rings: Iterable[NDArray[np.float64]], image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose center has an odd number of crossings of the rings to its right.

    An edge crosses a row of centers if one end is above it and one on or below it.
    """
    height, width = image_hw
    inside = np.zeros(image_hw, np.bool_)
    centers = np.arange(width) + 0.5
    for ring in rings:
        points = [(float(x), float(y)) for x, y in ring]
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            for row in range(height):
                y = row + 0.5
                if (y0 < y) != (y1 < y):
                    crossing = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
                    inside[row] ^= centers < crossing
    return inside


def parts(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The 4-connected parts of a mask, by flood fill, in the order of their first pixel."""
    unvisited = mask.copy()
    components = []
    height, width = mask.shape
    for start in map(tuple, np.argwhere(mask)):
        if not unvisited[start]:
            continue
        part = np.zeros_like(mask)
        stack = [start]
        while stack:
            y, x = stack.pop()
            if 0 <= y < height and 0 <= x < width and unvisited[y, x]:
                unvisited[y, x] = False
                part[y, x] = True
                stack += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        components.append(part)
    return components
