"""The pixels of each box in the image, and the mask cells that each interpolates, by paste rule.

All three rules are separable: a pixel's value is the sum of four cells of its mask, weighted by the
product of two weights of its column and two of its row. Masks are padded with zero cells.

Legend: D masks, M side of a mask, G = M + 3 cells along a padded one, P pixels along an axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.arrays import Bool, Float32, Int64, UInt8
from runtime.preprocessing.skimage_bilinear import taps

if TYPE_CHECKING:
    from model.spec import PasteRule

Weights = NDArray[np.floating]  # float64 for scikit-image, else float32
_Taps = Callable[[Int64, Int64], tuple[Int64, Weights, Weights]]
_Along = Callable[[int, int], "BoxAxis"]

# One zero cell before the mask and two after it, so that every sample has an upper neighbor.
CELLS_BEFORE, CELLS_AFTER = 1, 2
# Up to this height + width torch uses another resize kernel, which rounds differently.
SMALL_KERNEL_PX = 128
# A pixel's order of operations: torch's resize of large and of small outputs, its `grid_sample`,
# and scikit-image's resize. The first three as in rle_kernel.h.
LARGE_RESIZE, SMALL_RESIZE, GRID_SAMPLE, ZOOM = range(4)
_COORDINATE_LIMIT_PX = np.float32(2.0**31)
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@dataclass(frozen=True, slots=True, eq=False)
class BoxAxis:
    """The visible pixels of all boxes along one axis of the image.

    Attributes:
        first: int64 [D], first pixel of each box in the image.
        count: int64 [D], pixels of each box.
        taps: takes pixels of the image and their masks, int64 [P] each; returns the lower of two
            neighboring cells, its weight and the upper one's, [P] each. Both weights are 0 for
            pixels outside the mask.
    """

    first: Int64
    count: Int64
    taps: _Taps

    def table(self, part: slice) -> tuple[Int64, Weights]:
        """Cells int64 [P] and weights [2, P] of some masks, one after the other."""
        first, count = self.first[part], self.count[part]
        owner = np.repeat(np.arange(len(count)), count)
        before = np.cumsum(count) - count
        pixel = np.arange(owner.size) + (first - before)[owner]
        cell, lower, upper = self.taps(pixel, owner + part.start)
        return cell, np.stack((lower, upper))


def box_axes(
    boxes_xyxy: Float32, side: int, image_hw: tuple[int, int], paste: PasteRule
) -> tuple[BoxAxis, BoxAxis, UInt8]:
    """Both axes of all boxes, across and down, and each mask's order of operations, uint8 [D].

    Args:
        boxes_xyxy: float32 [D, 4], original-image pixels, finite; they may leave the image.
        side: M.
        image_hw: Height and width of the image in pixels.
        paste: Paste rule of `model.spec.MaskHeadSpec`.
    """
    rules = {"integer": _torch_resize, "float": _grid_sample, "resize": _skimage_resize}
    along, orders = rules[paste](boxes_xyxy, side)
    return along(0, image_hw[1]), along(1, image_hw[0]), orders.astype(np.uint8)


def grown_integer_boxes(boxes_xyxy: Float32, side: int) -> Int64:
    """Torchvision's `expand_boxes` and truncation; the last row and column belong to the box."""
    boxes = boxes_xyxy.clip(-_COORDINATE_LIMIT_PX, _COORDINATE_LIMIT_PX)
    low, high = boxes[:, :2], boxes[:, 2:]
    reach = (high - low) * _HALF * np.float32((side + 2) / side)
    center = (high + low) * _HALF
    return _integers(np.concatenate((center - reach, center + reach), axis=1))


def _integers(boxes_xyxy: Float32) -> Int64:
    limit = 2 * _COORDINATE_LIMIT_PX
    return boxes_xyxy.clip(-limit, limit).astype(np.int64)


def _box_axis(low: Int64, size: Int64, extent_px: int, taps_in_box: _Taps) -> BoxAxis:
    """The axis of integer boxes; `taps_in_box` takes offsets in the box."""
    first, stop = low.clip(0, extent_px), (low + size).clip(0, extent_px)
    return BoxAxis(
        first, np.maximum(stop - first, 0), lambda pixel, mask: taps_in_box(pixel - low[mask], mask)
    )


def _torch_resize(boxes_xyxy: Float32, side: int) -> tuple[_Along, Int64]:
    """Torchvision: bilinear resize without `align_corners`, with one cell of padding."""
    boxes = grown_integer_boxes(boxes_xyxy, side)
    low, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + 1
    is_small = size.sum(axis=1) <= SMALL_KERNEL_PX

    def along(axis: int, extent_px: int) -> BoxAxis:
        def taps_in_box(offset: Int64, mask: Int64) -> tuple[Int64, Weights, Weights]:
            sides = np.maximum(size[mask, axis], 1)
            cell, upper = resize_taps(offset, sides, is_small[mask], side + 3)
            return cell, _ONE - upper, upper

        return _box_axis(low[:, axis], size[:, axis], extent_px, taps_in_box)

    return along, np.where(is_small, SMALL_RESIZE, LARGE_RESIZE)


def resize_taps(pixel: Int64, size_out: Int64, is_small: Bool, cells: int) -> tuple[Int64, Float32]:
    """Torch's float32 index arithmetic: lower cell and weight of the upper one, [P] each.

    Args:
        pixel: int64 [P], offset in the box.
        size_out: int64 [P], side of the box in pixels.
        is_small: bool [P], whether torch uses its kernel for small outputs.
        cells: G.
    """
    size_in = cells - 1
    center = pixel.astype(np.float32) + _HALF
    scale = np.float32(size_in) / size_out.astype(np.float32)
    source = center * scale - _HALF
    if is_small.any():
        source = np.where(is_small, fma(center, scale, -_HALF), source)
    source = np.maximum(source, _ZERO)
    cell = np.minimum(source.astype(np.int64), size_in - 1)
    return cell, np.minimum(source - cell.astype(np.float32), _ONE)


def _grid_sample(boxes_xyxy: Float32, side: int) -> tuple[_Along, Int64]:
    """detectron2: `grid_sample` without `align_corners` at the centers of the pixels."""

    def along(axis: int, extent_px: int) -> BoxAxis:
        low, high = boxes_xyxy[:, axis], boxes_xyxy[:, axis + 2]
        # In float64: float32 rounds the extent of an image beyond 2^24 pixels.
        first = (np.floor(low) - _ONE).astype(np.float64).clip(0, extent_px).astype(np.int64)
        stop = (np.ceil(high) + _ONE).astype(np.float64).clip(0, extent_px).astype(np.int64)
        count = np.where(high > low, np.maximum(stop - first, 0), 0)

        def taps_in_image(pixel: Int64, mask: Int64) -> tuple[Int64, Weights, Weights]:
            start, end = low[mask], high[mask]
            center = pixel.astype(np.float32) + _HALF
            unit = (center - start) / (end - start) * _TWO - _ONE
            source = fma(unit + _ONE, np.float32(side) / _TWO, -_HALF)
            below = np.floor(source)
            upper = source - below
            cell = below.astype(np.int64) + CELLS_BEFORE
            inside = (cell >= 0) & (cell <= side)
            lower, upper = (np.where(inside, weight, _ZERO) for weight in (_ONE - upper, upper))
            return np.where(inside, cell, 0), lower, upper

        return BoxAxis(first, count, taps_in_image)

    return along, np.full(len(boxes_xyxy), GRID_SAMPLE)


def _skimage_resize(boxes_xyxy: Float32, side: int) -> tuple[_Along, Int64]:
    """Matterport: scikit-image's resize to the integer box, in float64."""
    boxes = _integers(boxes_xyxy)
    low, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]

    def along(axis: int, extent_px: int) -> BoxAxis:
        def taps_in_box(offset: Int64, mask: Int64) -> tuple[Int64, Weights, Weights]:
            before, upper = taps(offset, side, np.maximum(size[mask, axis], 1))
            lower = 1.0 - upper
            return before + CELLS_BEFORE, lower, 1.0 - lower

        return _box_axis(low[:, axis], size[:, axis], extent_px, taps_in_box)

    return along, np.full(len(boxes_xyxy), ZOOM)


def fma(a: Float32, b: Float32 | np.float32, c: Float32 | np.float32) -> Float32:
    """Fused multiply-add: a float32 product is exact in float64, so only the sum is rounded."""
    return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)
