"""A RoI in cells of its level, for every pooler."""

from __future__ import annotations

from model.pooling.arithmetic import Arithmetic, Array
from model.spec import PoolerSpec


def in_cells(
    xp: Arithmetic, low: Array, high: Array, scale: Array | float, spec: PoolerSpec
) -> tuple[Array, Array]:
    """A RoI's corner and sides; if `aligned`, cell i has its center at i.

    Args:
        xp: the arithmetic of the arrays.
        low: float32 [..., 2], the RoI's upper left corner in canvas pixels.
        high: float32 [..., 2], the lower right corner.
        scale: cells per pixel.
        spec: kind, quantization, alignment.

    Returns:
        corner and sides, float32 [..., 2] in cells. Sides are at least 1 for `roi_align` without
        `aligned`, as in torchvision, and for the poolers that quantize.
    """
    half = 0.5 if spec.aligned else 0.0
    start, end = low * scale, high * scale
    if spec.kind in ("roi_pool", "roi_warp"):
        start, sides = _quantized(xp, start, end, spec)
        return (start - half if spec.kind == "roi_warp" and half else start), sides
    if spec.kind == "crop_and_resize":
        return start, end - start
    if half:
        start, end = start - half, end - half
    sides = end - start
    if spec.kind == "roi_align" and not spec.aligned:
        sides = xp.maximum(sides, 1.0)
    return start, sides


def _quantized(xp: Arithmetic, start: Array, end: Array, spec: PoolerSpec) -> tuple[Array, Array]:
    """First cell and number of cells; "round" includes the last cell, as in Fast R-CNN."""
    if spec.quantise == "floor":
        first = xp.floor(start)
        return first, xp.maximum(xp.floor(end) - first, 1.0)
    first = round_half_away(xp, start)
    return first, xp.maximum(round_half_away(xp, end) - first + 1.0, 1.0)


def round_half_away(xp: Arithmetic, a: Array) -> Array:
    """Round to the nearest integer, halves away from zero, as C's `round`; exact in float32."""
    size = xp.absolute(a)
    below = xp.floor(size)
    rounded = xp.where(size - below < 0.5, below, below + 1.0)
    return xp.where(a < 0.0, -rounded, rounded)


def cells_per_pixel(spec: PoolerSpec, stride: int, side_hw: tuple[int, int]) -> tuple[float, float]:
    """A level's cells per canvas pixel, along y and x.

    1 / stride; with `crop_frame` "image" the last pixel maps to the last cell, for a canvas of
    side * stride pixels.
    """
    if spec.kind == "crop_and_resize" and spec.crop_frame == "image":
        y, x = ((side - 1) / max(side * stride - 1, 1) for side in side_hw)
        return y, x
    return 1 / stride, 1 / stride
