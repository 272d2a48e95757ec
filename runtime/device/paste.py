"""M x M mask probabilities to dense masks on the device: the pixels of `runtime.masks.paste`.

Box sizes are on the device only, so every row is evaluated on the whole image, a block of rows at
a time; a row without a box comes out empty. Products and sums are those of `runtime.masks.paste`'s
exact evaluation in the same order, so that no pixel differs.

Legend: D masks, M side of a mask, G = M + 3 cells of a padded one, H x W the image, h x w the
evaluated part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.device.library import Array, clipped
from runtime.masks.axes import CELLS_AFTER, CELLS_BEFORE, SMALL_KERNEL_PX
from runtime.masks.paste import MaskRule

# Pixels per block, about 40 bytes each.
_BLOCK_PIXELS = 1 << 23
_LIMIT_PX = 2.0**31

_Corners = tuple[Array, Array, Array, Array]


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """Linear interpolation along one axis of padded masks, for n pixels.

    cell: int64 [D, n], the lower of two cells; weight0 and weight1: [D, n], their weights,
    arbitrary outside the box; inside: bool [D, n].
    """

    cell: Array
    weight0: Array
    weight1: Array
    inside: Array


def paste(
    xp: Any, mask_probs: Array, boxes_xyxy: Array, image_hw: tuple[int, int], rule: MaskRule
) -> Array:
    """Paste each mask into its box and cut it at the threshold.

    Args:
        xp: namespace of the arrays.
        mask_probs: float32 [D, M, M], probabilities, finite.
        boxes_xyxy: float32 [D, 4], original-image pixels, finite; they may leave the image.
        image_hw: H and W.
        rule: paste rule and threshold.

    Returns:
        bool [D, H, W] on the device, without a copy to the host or a wait.
    """
    import array_api_compat as compat

    device = compat.device(boxes_xyxy)
    dense = xp.empty((mask_probs.shape[0], *image_hw), dtype=xp.bool, device=device)
    step = rows_at_once(image_hw)
    for start in range(0, mask_probs.shape[0], step):
        rows = slice(start, start + step)
        grids = _padded(xp, mask_probs[rows, ...], device)
        pixels = [xp.arange(side, dtype=xp.int64, device=device) for side in image_hw]
        dense[rows, ...] = _RULES[rule.paste](xp, grids, boxes_xyxy[rows, :], pixels, rule)
    return dense


def rows_at_once(image_hw: tuple[int, int]) -> int:
    """Number of masks per block."""
    return max(1, _BLOCK_PIXELS // (image_hw[0] * image_hw[1]))


def _padded(xp: Any, masks: Array, device: Any) -> Array:
    """Pad each mask with zero cells, float32 [D, M, M] to [D, G, G]."""
    count, side, _ = masks.shape
    cells = side + CELLS_BEFORE + CELLS_AFTER
    grids = xp.zeros((count, cells, cells), dtype=xp.float32, device=device)
    grids[:, CELLS_BEFORE:-CELLS_AFTER, CELLS_BEFORE:-CELLS_AFTER] = masks
    return grids


def _paste_integer(
    xp: Any, grids: Array, boxes_xyxy: Array, pixels: list[Array], rule: MaskRule
) -> Array:
    """Large boxes along x and then y; boxes of the small kernel in a window of their own."""
    first, last = _grown_integer_boxes(xp, boxes_xyxy, grids.shape[1] - CELLS_BEFORE - CELLS_AFTER)
    sides = last - first + 1
    small = xp.sum(sides, axis=1) <= SMALL_KERNEL_PX  # [D]
    offsets = [pixels[axis] - first[:, 1 - axis, None] for axis in (0, 1)]  # rows, columns
    down, across = (
        _resize_axis(xp, offsets[axis], sides[:, 1 - axis, None], grids.shape[1], fused=False)
        for axis in (0, 1)
    )
    columns = [_take(xp, grids, 2, across.cell + tap) for tap in (0, 1)]  # [D, G, w]
    x0, x1 = across.weight0[:, None, :], across.weight1[:, None, :]
    lines = _fma(xp, columns[0], x0, columns[1] * x1)
    y0, y1 = down.weight0[:, :, None], down.weight1[:, :, None]
    upper, lower = (_take(xp, lines, 1, down.cell + tap) for tap in (0, 1))  # [D, h, w]
    bits = _is_foreground(xp, _fma(xp, upper, y0, lower * y1), rule)
    in_window = _small_windows(xp, grids, sides, rule)
    for axis in (0, 1):
        index = clipped(xp, offsets[axis], 0, SMALL_KERNEL_PX - 1)
        in_window = _take(xp, in_window, 1 + axis, index)
    bits = xp.where(small[:, None, None], in_window, bits)
    return bits & down.inside[:, :, None] & across.inside[:, None, :]


def _grown_integer_boxes(xp: Any, boxes_xyxy: Array, side: int) -> tuple[Array, Array]:
    """First and last pixel of each box, int64 [D, 2] of x and y; see `runtime.masks.paste`."""
    boxes = clipped(xp, boxes_xyxy, -_LIMIT_PX, _LIMIT_PX)
    low, high = boxes[:, :2], boxes[:, 2:]
    reach = (high - low) * 0.5 * float(np.float32((side + 2) / side))
    center = (high + low) * 0.5
    return _integers(xp, center - reach), _integers(xp, center + reach)


def _integers(xp: Any, boxes_xyxy: Array) -> Array:
    return xp.astype(clipped(xp, boxes_xyxy, -2 * _LIMIT_PX, 2 * _LIMIT_PX), xp.int64)


def _resize_axis(xp: Any, offset: Array, side: Array, cells: int, fused: bool) -> _Axis:
    """Torch's bilinear resize; `offset` [D, n] from the box's first pixel, `side` [D, 1]."""
    size_in = cells - 1
    size_out = xp.astype(clipped(xp, side, 1), xp.float32)
    # PyTorch divides a number by an array as a product with the reciprocal.
    scale = xp.full_like(size_out, size_in) / size_out
    center = xp.astype(offset, xp.float32) + 0.5
    source = _fma(xp, center, scale, -0.5) if fused else center * scale - 0.5
    source = clipped(xp, source, 0.0)
    cell = clipped(xp, xp.astype(source, xp.int64), high=size_in - 1)
    upper = clipped(xp, source - xp.astype(cell, xp.float32), high=1.0)
    return _Axis(cell, 1.0 - upper, upper, (offset >= 0) & (offset < side))


def _small_windows(xp: Any, grids: Array, sides: Array, rule: MaskRule) -> Array:
    """The small kernel's resize of each box, from its first pixel on, bool [D, n, n]."""
    import array_api_compat as compat

    window = xp.arange(SMALL_KERNEL_PX, dtype=xp.int64, device=compat.device(grids))
    window = xp.broadcast_to(window, (grids.shape[0], SMALL_KERNEL_PX))
    down, across = (
        _resize_axis(xp, window, sides[:, axis, None], grids.shape[1], fused=True)
        for axis in (1, 0)
    )
    return _is_foreground(xp, _evaluate(xp, grids, down, across, _small_resize), rule)


def _paste_float(
    xp: Any, grids: Array, boxes_xyxy: Array, pixels: list[Array], rule: MaskRule
) -> Array:
    down, across = (
        _sample_axis(xp, boxes_xyxy[:, low, None], boxes_xyxy[:, low + 2, None], pixels[axis],
                     grids.shape[1])
        for axis, low in ((0, 1), (1, 0))
    )  # fmt: skip
    return _is_foreground(xp, _evaluate(xp, grids, down, across, _grid_sample), rule)


def _sample_axis(xp: Any, low: Array, high: Array, pixel: Array, cells: int) -> _Axis:
    """Torch's `grid_sample` at the centers of the box's pixels and a one-pixel border."""
    side = cells - CELLS_BEFORE - CELLS_AFTER
    position = xp.astype(pixel, xp.float32)
    inside = (position >= xp.floor(low) - 1.0) & (position < xp.ceil(high) + 1.0) & (high > low)
    extent = xp.where(high > low, high - low, xp.ones_like(low))
    unit = (position + 0.5 - low) / extent * 2.0 - 1.0
    source = _fma(xp, unit + 1.0, side / 2, -0.5)
    below = xp.floor(source)
    inside = inside & (below >= -float(CELLS_BEFORE)) & (below <= float(side - CELLS_BEFORE))
    zero = xp.zeros_like(source)
    upper = xp.where(inside, source - below, zero)
    cell = xp.astype(xp.where(inside, below, zero), xp.int64) + CELLS_BEFORE
    return _Axis(cell, xp.where(inside, 1.0 - upper, zero), upper, inside)


def _paste_resized(
    xp: Any, grids: Array, boxes_xyxy: Array, pixels: list[Array], rule: MaskRule
) -> Array:
    side = grids.shape[1] - CELLS_BEFORE - CELLS_AFTER
    boxes = _integers(xp, boxes_xyxy)
    down, across = (
        _zoom_axis(xp, boxes[:, low, None], boxes[:, low + 2, None], pixels[axis], side)
        for axis, low in ((0, 1), (1, 0))
    )
    bits = _is_foreground(xp, _evaluate(xp, grids, down, across, _zoom), rule)
    # Zeros blend in at the edges, but scikit-image clips to the smallest probability of the mask.
    lowest = xp.min(grids[:, CELLS_BEFORE:-CELLS_AFTER, CELLS_BEFORE:-CELLS_AFTER], axis=(1, 2))
    bits = bits | _is_foreground(xp, lowest, rule)[:, None, None]
    return bits & down.inside[:, :, None] & across.inside[:, None, :]


def _zoom_axis(xp: Any, first: Array, end: Array, pixel: Array, cells: int) -> _Axis:
    """scikit-image's resize of a mask to the pixels of its box, in float64."""
    offset = pixel - first
    inside = (offset >= 0) & (offset < end - first)
    size = xp.astype(clipped(xp, end - first, 1), xp.float64)
    scale = xp.full_like(size, cells) / size
    center = (xp.astype(offset, xp.float64) + 0.5) * scale - 0.5
    before = xp.floor(center)
    weight0 = 1.0 - (center - before)
    cell = xp.where(inside, before, xp.zeros_like(before))
    return _Axis(xp.astype(cell, xp.int64) + CELLS_BEFORE, weight0, 1.0 - weight0, inside)


def _evaluate(
    xp: Any, grids: Array, down: _Axis, across: _Axis, exact: Callable[..., Array]
) -> Array:
    """Probabilities [D, h, w] from the four cells around each pixel."""
    columns = [_take(xp, grids, 2, across.cell + tap) for tap in (0, 1)]  # [D, G, w]
    corners = tuple(
        _take(xp, column, 1, down.cell + tap) for tap in (0, 1) for column in columns
    )  # [D, h, w]
    x0, x1 = across.weight0[:, None, :], across.weight1[:, None, :]
    return exact(xp, corners, x0, x1, down.weight0[:, :, None], down.weight1[:, :, None])


def _take(xp: Any, values: Array, axis: int, index: Array) -> Array:
    """Take from `values` [D, a, b] along one axis at `index` [D, n], for the whole other axis."""
    # The library broadcasts the index over the other axis without a copy.
    index = index[:, :, None] if axis == 1 else index[:, None, :]
    return xp.take_along_axis(values, index, axis=axis)


def _small_resize(xp: Any, corners: _Corners, x0: Array, x1: Array, y0: Array, y1: Array) -> Array:
    """As in `runtime.masks.paste`, which names the source; also the next two."""
    total = _fma(xp, corners[0], x0 * y0, corners[1] * (x1 * y0))
    return _fma(xp, corners[3], x1 * y1, _fma(xp, corners[2], x0 * y1, total))


def _grid_sample(xp: Any, corners: _Corners, x0: Array, x1: Array, y0: Array, y1: Array) -> Array:
    total = _fma(xp, corners[1], x1 * y0, corners[0] * (x0 * y0))
    return _fma(xp, corners[3], x1 * y1, _fma(xp, corners[2], x0 * y1, total))


def _zoom(xp: Any, corners: _Corners, x0: Array, x1: Array, y0: Array, y1: Array) -> Array:
    total = corners[0] * y0 * x0
    total += corners[1] * y0 * x1
    total += corners[2] * y1 * x0
    total += corners[3] * y1 * x1
    return xp.astype(total, xp.float32)


def _fma(xp: Any, a: Array, b: Array | float, c: Array | float) -> Array:
    """Fused multiply-add: a float32 product is exact in float64, so only the sum is rounded."""
    total = xp.astype(a, xp.float64)
    total *= b
    total += c
    return xp.astype(total, xp.float32)


def _is_foreground(xp: Any, probs: Array, rule: MaskRule) -> Array:
    threshold = float(np.float32(rule.threshold))
    return probs >= threshold if rule.threshold_inclusive else probs > threshold


_RULES: dict[str, Callable[..., Array]] = {
    "integer": _paste_integer,
    "float": _paste_float,
    "resize": _paste_resized,
}
