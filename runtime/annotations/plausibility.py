"""Objects that are valid but unlikely: a line for each kind, with their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.arrays import Bool, Float64
from runtime.annotations.objects import CleanObject

# Rounding moves an edge by up to a pixel.
_MARGIN_PX = 1.0
_LEAST_IOU = 0.5
# Rounding alone changes the IoU of smaller boxes.
_LEAST_SIDE_PX = 8.0


def unlikely(objects: Sequence[CleanObject], sizes_hw: Sequence[tuple[int, int]]) -> list[str]:
    """A line for each kind of unlikely box or mask.

    Args:
        objects: one or more.
        sizes_hw: height and width of each one's photo.
    """
    boxes: Float64 = np.array([one.fields["bbox"] for one in objects], np.float64)
    lines = []
    crowds = sum(one.fields["iscrowd"] for one in objects)
    if crowds > len(objects) / 2:
        lines.append(
            f"{crowds} of {len(objects)} objects are crowds (iscrowd 1), which AP leaves out; some "
            "tools write that for every object with run lengths"
        )
    outside = _outside(boxes, np.array(sizes_hw, np.float64))
    if outside.any():
        lines.append(
            f"{outside.sum()} of {len(boxes)} boxes reach out of their photo by more than "
            f"{_MARGIN_PX:g} px (first: {boxes[outside][0].tolist()}); expected [x, y, width, "
            "height] in pixels"
        )
    if boxes[:, 2:].max() <= 1:
        lines.append(
            f"all {len(boxes)} boxes are at most 1 px wide and high; expected pixels, not fractions"
        )
    masked = [one for one in objects if one.mask is not None]
    return lines + (_unlikely_masks(masked) if masked else [])


def repeated(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line about clean annotations that are equal but for their ids, as after a merge."""
    keys = [
        (row["image_id"], row["category_id"], *row["bbox"], str(row.get("segmentation")))
        for row in rows
    ]
    again = len(keys) - len(set(keys))
    if not again:
        return []
    return [
        f"{again} of {len(rows)} objects repeat another one (photo, category, box and mask); all "
        "of them count"
    ]


def _outside(boxes: Float64, sizes_hw: Float64) -> Bool:
    too_low = boxes[:, :2] < -_MARGIN_PX
    too_high = boxes[:, :2] + boxes[:, 2:] > sizes_hw[:, ::-1] + _MARGIN_PX
    outside: Bool = np.any(too_low | too_high, axis=1)
    return outside


def _unlikely_masks(objects: Sequence[CleanObject]) -> list[str]:
    from pycocotools import mask

    of_masks: Float64 = mask.toBbox([one.mask.rle for one in objects if one.mask is not None])
    lines = []
    empty = int((of_masks[:, 2] == 0).sum())
    if empty:
        lines.append(f"{empty} of {len(objects)} masks have no pixel in their photo")
    given = [n for n, one in enumerate(objects) if one.given_box is not None]
    if given:
        boxes: Float64 = np.array([objects[n].given_box for n in given], np.float64)
        apart = _apart(boxes, of_masks[given])
        if apart.any():
            lines.append(
                f"{apart.sum()} of {len(given)} boxes overlap with their mask's box by less than "
                f"IoU {_LEAST_IOU:g} (first: {boxes[apart][0].tolist()}); expected [x, y, width, "
                "height] in pixels"
            )
    return lines


def _apart(boxes: Float64, others: Float64) -> Bool:
    """Whether pairs of boxes, xywh [N, 4], have a small IoU; not for small or empty ones."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared = (high - low).clip(min=0).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + others[:, 2:].prod(axis=1) - shared
    is_large = others[:, 2:].min(axis=1) >= _LEAST_SIDE_PX
    apart: Bool = is_large & (shared < _LEAST_IOU * union)
    return apart
