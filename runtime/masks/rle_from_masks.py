"""COCO run lengths of pasted masks.

For torchvision's and detectron2's paste rules a C kernel computes only the pixels near the
threshold. Without the kernel, and for Matterport's rule, masks are pasted as crops and encoded; the
results are byte-identical. `bench/paste.py` times both.

Legend: D masks, G cells along a padded grid, P pixels of all boxes together along one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from model.arrays import Float32, Int32, Int64, UInt8
from runtime.masks import rle
from runtime.masks.paste import (
    SMALL_KERNEL_PX,
    MaskRule,
    grown_integer_boxes,
    padded_grids,
    paste_crops,
    resize_taps,
    sample_taps,
    sampled_pixels,
)

try:
    from runtime.masks import _rle

    IS_COMPILED = True
except ImportError:  # built without a compiler; `maskport doctor` says so
    IS_COMPILED = False


# Columns and rows per call of the kernel; bounds the memory of a thousand masks.
_TABLE_PIXELS = 1 << 16
# As in rle_kernel.h: torch's resize of large and of small outputs, and its `grid_sample`.
_LARGE_RESIZE, _SMALL_RESIZE, _GRID_SAMPLE = range(3)


def encode_pasted(
    mask_probs: Float32, boxes_xyxy: Float32, image_hw: tuple[int, int], rule: MaskRule
) -> list[rle.Rle]:
    """Paste, threshold and encode; equal to `rle.encode` of `paste_crops` for every mask.

    Args:
        mask_probs: float32 [D, M, M], probabilities, from 0 to 1.
        boxes_xyxy: float32 [D, 4], original-image pixels, finite; they may leave the image.
        image_hw: Height and width of the image in pixels.
        rule: Paste rule and threshold.
    """
    if IS_COMPILED and rule.paste in ("integer", "float"):
        return _encode_c(mask_probs, boxes_xyxy, image_hw, rule)
    crops = paste_crops(mask_probs, boxes_xyxy, image_hw, rule)
    return [rle.encode(crop.columns, crop.x0_px, crop.y0_px, image_hw) for crop in crops]


def _encode_c(
    mask_probs: Float32, boxes_xyxy: Float32, image_hw: tuple[int, int], rule: MaskRule
) -> list[rle.Rle]:
    """`encode_pasted` for the rules "integer" and "float"."""
    axes = _resized if rule.paste == "integer" else _sampled
    across, down, orders = axes(boxes_xyxy, mask_probs.shape[-1], image_hw)
    # A mask outside the image has neither columns nor rows.
    is_visible = (across.count > 0) & (down.count > 0)
    for axis in (across, down):
        axis.count[~is_visible] = 0
    encoded: list[rle.Rle] = []
    for part in _groups(across.count + down.count):
        grids = padded_grids(mask_probs[part])
        cells = grids.shape[-1]
        texts = _rle.encode(
            np.ascontiguousarray(grids.transpose(0, 2, 1)),
            orders[part],
            np.stack((across.first[part], down.first[part]), axis=1).astype(np.int32),
            np.stack((across.count[part], down.count[part]), axis=1).astype(np.int32),
            *across.table(part, cells),
            *down.table(part, cells),
            *image_hw,
            rule.threshold,
            rule.threshold_inclusive,
        )
        encoded += [{"size": list(image_hw), "counts": text} for text in texts]
    return encoded


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """The visible pixels of all boxes along one axis of the image.

    Attributes:
        first: int64 [D], first pixel of each box in the image.
        count: int64 [D], pixels of each box.
        taps: takes pixels of the image and their masks, int64 [P] each, and the number of cells;
            returns lower cell, its weight and the upper one's, [P] each.
    """

    first: Int64
    count: Int64
    taps: Callable[[Int64, Int64, int], tuple[Int64, Float32, Float32]]

    def table(self, part: slice, cells: int) -> tuple[Int32, Float32]:
        """Cells int32 [P] and weights float32 [2, P] of some masks, one after the other."""
        first, count = self.first[part], self.count[part]
        owner = np.repeat(np.arange(len(count)), count)
        before = np.cumsum(count) - count
        pixel = np.arange(owner.size) + (first - before)[owner]
        cell, lower, upper = self.taps(pixel, owner + part.start, cells)
        return cell.astype(np.int32), np.stack((lower, upper))


_Axes = tuple[_Axis, _Axis, UInt8]


def _resized(boxes_xyxy: Float32, side: int, image_hw: tuple[int, int]) -> _Axes:
    """Both axes and each mask's order of operations, by torchvision's rule."""
    boxes = grown_integer_boxes(boxes_xyxy, side)
    low, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + 1
    is_small = size.sum(axis=1) <= SMALL_KERNEL_PX

    def along(axis: int, extent_px: int) -> _Axis:
        def taps(pixel: Int64, mask: Int64, cells: int) -> tuple[Int64, Float32, Float32]:
            offset, sides = pixel - low[mask, axis], np.maximum(size[mask, axis], 1)
            cell, upper = resize_taps(offset, sides, is_small[mask], cells)
            return cell, np.float32(1) - upper, upper

        first = low[:, axis].clip(0, extent_px)
        stop = (low[:, axis] + size[:, axis]).clip(0, extent_px)
        return _Axis(first, np.maximum(stop - first, 0), taps)

    orders = np.where(is_small, np.uint8(_SMALL_RESIZE), np.uint8(_LARGE_RESIZE))
    return along(0, image_hw[1]), along(1, image_hw[0]), orders


def _sampled(boxes_xyxy: Float32, side: int, image_hw: tuple[int, int]) -> _Axes:
    """The same, by detectron2's rule."""

    def along(axis: int, extent_px: int) -> _Axis:
        low, high = boxes_xyxy[:, axis], boxes_xyxy[:, axis + 2]

        def taps(pixel: Int64, mask: Int64, cells: int) -> tuple[Int64, Float32, Float32]:
            return sample_taps(pixel, low[mask], high[mask], cells)

        first, stop = sampled_pixels(low, high, extent_px)
        return _Axis(first, stop - first, taps)

    orders = np.full(len(boxes_xyxy), _GRID_SAMPLE, np.uint8)
    return along(0, image_hw[1]), along(1, image_hw[0]), orders


def _groups(pixels: Int64) -> Iterator[slice]:
    """Consecutive masks with about `_TABLE_PIXELS` columns and rows together."""
    group = np.cumsum(pixels) // _TABLE_PIXELS
    starts = (np.flatnonzero(np.diff(group)) + 1).tolist()
    for start, stop in pairwise([0, *starts, len(pixels)]):
        yield slice(start, stop)
