"""Where a RoI stands among the cells of its level, for every kind of pooler."""

from __future__ import annotations

from model.pooling.arithmetic import Arithmetic, Array
from model.spec import PoolerSpec


def in_cells(
    xp: Arithmetic, low: Array, high: Array, scale: Array | float, spec: PoolerSpec
) -> tuple[Array, Array]:
    """A RoI's corner and its sides; where `aligned`, cell i has its centre at i.

    Args:
        xp: the arithmetic of the arrays.
        low: float32 [..., 2], the RoI's upper left corner in canvas pixels.
        high: float32 [..., 2], the lower right one.
        scale: cells per pixel.
        spec: kind, quantisation, alignment.

    Returns:
        corner and sides, float32 [..., 2] in cells. `roi_align` without `aligned` has sides of at
        least 1, as torchvision has it, and so have the kinds that quantise.
    """
    half = 0.5 if spec.aligned else 0.0
    start, end = low * scale, high * scale
    if spec.kind in ("roi_pool", "roi_warp"):
        start, sides = _quantised(xp, start, end, spec)
        return (start - half if spec.kind == "roi_warp" and half else start), sides
    if spec.kind == "crop_and_resize":
        return start, end - start
    if half:
        start, end = start - half, end - half
    sides = end - start
    if spec.kind == "roi_align" and not spec.aligned:
        sides = xp.maximum(sides, 1.0)
    return start, sides


def _quantised(xp: Arithmetic, start: Array, end: Array, spec: PoolerSpec) -> tuple[Array, Array]:
    """First cell and number of cells; "round" counts the last cell, as Fast R-CNN does."""
    if spec.quantise == "floor":
        first = xp.floor(start)
        return first, xp.maximum(xp.floor(end) - first, 1.0)
    first = round_half_away(xp, start)
    return first, xp.maximum(round_half_away(xp, end) - first + 1.0, 1.0)


def round_half_away(xp: Arithmetic, a: Array) -> Array:
    """To the nearest whole number, halves away from zero, as C's `round`; float32 is exact."""
    size = xp.absolute(a)
    below = xp.floor(size)
    rounded = xp.where(size - below < 0.5, below, below + 1.0)
    return xp.where(a < 0.0, -rounded, rounded)


def cells_per_pixel(spec: PoolerSpec, stride: int, side_hw: tuple[int, int]) -> tuple[float, float]:
    """Of a level along y and x: 1 / stride, or from the canvas's last pixel to the last cell.

    The canvas is taken to have side * stride pixels.
    """
    if spec.kind == "crop_and_resize" and spec.crop_frame == "image":
        y, x = ((side - 1) / max(side * stride - 1, 1) for side in side_hw)
        return y, x
    return 1 / stride, 1 / stride
