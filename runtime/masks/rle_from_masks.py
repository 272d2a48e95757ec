"""COCO run lengths of pasted masks.

For torchvision's and detectron2's paste rules a C kernel computes only the pixels near the
threshold. Without the kernel, and for Matterport's rule, masks are pasted as crops and encoded; the
results are byte-identical. `bench/paste.py` times both.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from model.arrays import Float32, Int64
from runtime.masks import rle
from runtime.masks.axes import box_axes
from runtime.masks.paste import MaskRule, padded_grids, paste_crops

try:
    from runtime.masks import _rle

    IS_COMPILED = True
except ImportError:  # built without a compiler; `maskport doctor` reports it
    IS_COMPILED = False

# Columns and rows per call of the kernel; bounds the memory of a thousand masks.
_TABLE_PIXELS = 1 << 16


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
    across, down, orders = box_axes(boxes_xyxy, mask_probs.shape[-1], image_hw, rule.paste)
    # A mask outside the image has neither columns nor rows.
    is_visible = (across.count > 0) & (down.count > 0)
    for axis in (across, down):
        axis.count[~is_visible] = 0
    encoded: list[rle.Rle] = []
    for part in _groups(across.count + down.count):
        cell_x, weight_x = across.table(part)
        cell_y, weight_y = down.table(part)
        texts = _rle.encode(
            np.ascontiguousarray(padded_grids(mask_probs[part]).transpose(0, 2, 1)),
            orders[part],
            np.stack((across.first[part], down.first[part]), axis=1).astype(np.int32),
            np.stack((across.count[part], down.count[part]), axis=1).astype(np.int32),
            cell_x.astype(np.int32),
            weight_x.astype(np.float32, copy=False),
            cell_y.astype(np.int32),
            weight_y.astype(np.float32, copy=False),
            *image_hw,
            rule.threshold,
            rule.threshold_inclusive,
        )
        encoded += [{"size": list(image_hw), "counts": text} for text in texts]
    return encoded


def _groups(pixels: Int64) -> Iterator[slice]:
    """Consecutive masks with about `_TABLE_PIXELS` columns and rows together."""
    group = np.cumsum(pixels) // _TABLE_PIXELS
    starts = (np.flatnonzero(np.diff(group)) + 1).tolist()
    for start, stop in pairwise([0, *starts, len(pixels)]):
        yield slice(start, stop)
