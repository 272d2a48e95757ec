"""COCO run lengths of integer-pasted masks in NumPy, without computing a single inner pixel.

For packages that were built without a compiler; `runtime.masks.rle_from_masks` chooses. Along one
column of the image a pasted mask is piecewise linear between the M + 2 cells of the padded mask, so
it crosses the threshold at few places; those are the ends of its runs. They are found for all columns of
many masks at once. A pixel that stands too close to the threshold for this arithmetic is evaluated again
in torch's own, and so is every pixel of a column that has a cell that close, or that crosses too
flatly: the result is the same to the bit.

Module legend: D masks, G cells of a padded grid, N columns of all boxes together, E crossings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from runtime.masks import rle
from runtime.masks.paste import (
    SMALL_KERNEL_PX,
    Float32Array,
    MaskRule,
    evaluate_resized,
    grown_integer_boxes,
    padded_grids,
    resize_axis,
    resize_taps,
    threshold_into,
)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# A group of masks has about so many columns: its arrays then stay in the processor's cache.
_GROUP_COLUMNS = 1 << 13
# Pixels of close columns that are computed at once, for the same reason.
_BLOCK_PIXELS = 1 << 15
# Several times what float32 can move a pixel near a crossing, or a cell of a column. Its place
# among the cells rounds by half a unit of the last place of up to G, three times over.
_LEAST_PIXEL_BAND = 1e-5
_PIXEL_BAND_PER_CELL = 2.5e-7


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Masks that are taken together: grids float32 [D, G, G] with x first, boxes int64 [D, 4]."""

    grids_xy: Float32Array
    boxes_xyxy: Ints
    image_hw: tuple[int, int]
    rule: MaskRule

    @property
    def size_wh(self) -> Ints:
        """Int64 [D, 2]."""
        size: Ints = np.maximum(self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2] + 1, 1)
        return size

    @property
    def pixel_band(self) -> float:
        """A pixel that is closer to the threshold is evaluated in torch's own arithmetic."""
        cells: int = self.grids_xy.shape[-1]
        return max(_LEAST_PIXEL_BAND, _PIXEL_BAND_PER_CELL * cells)

    @property
    def column_band(self) -> float:
        """What makes a column simple, so that a doubtful pixel is the only one of its crossing.

        Every cell is farther than that from the threshold, so that such a pixel is between the
        two cells of the crossing, and the step from pixel to pixel there is greater.
        """
        return 2 * self.pixel_band

    @property
    def is_small(self) -> Bools:
        """Bool [D]: torch resizes these with its kernel for small outputs."""
        total = (self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2] + 1).sum(axis=1)
        small: Bools = total <= SMALL_KERNEL_PX
        return small


def encode_crossings(
    mask_probs: Float32Array, boxes_xyxy: Float32Array, image_hw: tuple[int, int], rule: MaskRule
) -> list[rle.Rle]:
    """`runtime.masks.rle_from_masks.encode_pasted` for an "integer" paste rule."""
    boxes = grown_integer_boxes(boxes_xyxy, mask_probs.shape[-1])
    found: list[rle.Rle] = []
    for part in _groups(boxes, image_hw[1]):
        grids = np.ascontiguousarray(padded_grids(mask_probs[part]).transpose(0, 2, 1))
        group = _Group(grids, boxes[part], image_hw, rule)
        found += rle.encode_edges(*_edges(group), image_hw)
    return found


def _groups(boxes_xyxy: Ints, image_width: int) -> Iterator[slice]:
    """Consecutive masks whose visible columns together are about `_GROUP_COLUMNS`."""
    visible = np.minimum(boxes_xyxy[:, 2] + 1, image_width) - np.maximum(boxes_xyxy[:, 0], 0)
    group = np.cumsum(np.maximum(visible, 0)) // _GROUP_COLUMNS
    starts = (np.flatnonzero(np.diff(group)) + 1).tolist()
    for start, stop in pairwise([0, *starts, len(boxes_xyxy)]):
        yield slice(start, stop)


def _edges(group: _Group) -> tuple[Ints, Ints]:
    """Where runs begin and end, column-major, in turn.

    Returns:
        positions int64, mask after mask, rising within each; their number per mask, int64 [D].
    """
    mask, pixel_x = _columns(group)
    column, above, is_close = _column_cells(group, mask, pixel_x)
    turns = np.flatnonzero(above[:, 1:] != above[:, :-1])
    at = turns // (above.shape[1] - 1)
    found = _Crossings.find(group, column, mask, turns, at)
    is_close[at[np.abs(found.step) < group.column_band]] = True
    if is_close.any():
        found = found.where(~is_close[at])
        at = found.at
    row = _crossing_rows(group, found, pixel_x)
    row = (row + group.boxes_xyxy[found.owner, 1]).clip(0, group.image_hw[0])
    if is_close.any():
        more_at, more_row = _edges_by_pixel(group, mask, pixel_x, column, np.flatnonzero(is_close))
        at, row = np.concatenate((at, more_at)), np.concatenate((row, more_row))
    owner = mask[at]
    height, width = group.image_hw
    place = (pixel_x[at] + group.boxes_xyxy[owner, 0]) * height + row
    # A mask's positions end at height * width, so this key sorts by mask first.
    span = height * width + 1
    key = owner * span + place
    key.sort()
    if (key[1:] == key[:-1]).any():
        # Two ends at one place cancel: a run of no pixel, or one that goes on in the next column.
        first = np.flatnonzero(np.diff(key, prepend=-1))
        repeats = np.diff(first, append=key.size)
        key = key[first[repeats % 2 == 1]]
    masks = len(group.grids_xy)
    ends = np.searchsorted(key, np.arange(1, masks + 1) * span)
    number = np.diff(ends, prepend=0)
    return key - np.repeat(np.arange(masks) * span, number), number


def _edges_by_pixel(
    group: _Group, mask: Ints, pixel_x: Ints, column: Float32Array, close: Ints
) -> tuple[Ints, Ints]:
    """Column, and row of the image, of the ends of runs in the columns `close`, int64 [K].

    Every pixel of theirs is computed, mask by mask and in blocks that stay in the processor's
    cache: a mask that is flat at the threshold has as many of them as the image.
    """
    cells = column.shape[1]
    at, row = [], []
    turns = np.flatnonzero(np.diff(mask[close])) + 1
    for start, stop in pairwise([0, *turns.tolist(), close.size]):
        owner = int(mask[close[start]])
        _, y0, _, y1 = group.boxes_xyxy[owner].tolist()
        down = resize_axis(y0, y1, group.image_hw[0], cells, bool(group.is_small[owner]))
        step = max(1, _BLOCK_PIXELS // down.cell.size)
        for first in range(start, stop, step):
            block = close[first : min(first + step, stop)]
            probs = down.interpolate(column[block])
            # Background on either side, so that the first and the last run have both ends.
            bits = np.zeros((block.size, down.cell.size + 2), np.bool_)
            _fill(bits[:, 1:-1], group, owner, pixel_x[block], down.start_px - y0, probs)
            turned_at, turned_row = np.nonzero(bits[:, 1:] != bits[:, :-1])
            at.append(block[turned_at])
            row.append(turned_row + down.start_px)
    return np.concatenate(at), np.concatenate(row)


def _fill(
    bits: Bools, group: _Group, owner: int, pixel_x: Ints, first_y: int, probs: Float32Array
) -> None:
    """Threshold columns of one mask, [K, h], the doubtful pixels in torch's order of operations."""
    at, row = threshold_into(bits, probs, group.rule.threshold)
    if at.size:
        of = np.full(at.size, owner)
        bits[at, row] = evaluate_resized(
            group.grids_xy,
            of,
            pixel_x[at],
            row + first_y,
            group.size_wh[of],
            group.is_small[of],
            group.rule,
        )


def _columns(group: _Group) -> tuple[Ints, Ints]:
    """Mask and place in its box of every visible column, int64 [N] each."""
    height, width = group.image_hw
    x0, y0, x1, y1 = group.boxes_xyxy.T
    first = np.maximum(x0, 0)
    visible = np.maximum(np.minimum(x1 + 1, width) - first, 0)
    visible[np.minimum(y1 + 1, height) <= np.maximum(y0, 0)] = 0
    mask = np.repeat(np.arange(len(visible)), visible)
    before = np.cumsum(visible) - visible
    return mask, np.arange(mask.size) + (first - x0 - before)[mask]


def _column_cells(group: _Group, mask: Ints, pixel_x: Ints) -> tuple[Float32Array, Bools, Bools]:
    """The cells of each column, float32 [N, G], which are above, and which columns are close."""
    cells = group.grids_xy.shape[-1]
    cell, upper = resize_taps(pixel_x, group.size_wh[:, 0][mask], group.is_small[mask], cells)
    column = group.grids_xy.reshape(-1, cells).take(mask * cells + cell, axis=0)
    slopes = np.diff(group.grids_xy, axis=1).reshape(-1, cells)
    change = slopes.take(mask * (cells - 1) + cell, axis=0)
    change *= upper[:, None]
    column += change
    threshold, band = np.float32(group.rule.threshold), np.float32(group.column_band)
    above = column > threshold - band
    is_close: Bools = (above != (column > threshold + band)).any(axis=1)
    return column, above, is_close


def _cells_per_pixel(group: _Group) -> NDArray[np.float64]:
    """Down the columns of each mask, float64 [D]."""
    scale: NDArray[np.float64] = (group.grids_xy.shape[-1] - 1) / group.size_wh[:, 1]
    return scale


@dataclass(frozen=True, slots=True, eq=False)
class _Crossings:
    """Where columns cross the threshold between two cells, [E] each.

    Attributes:
        at: int64, the column.
        owner: int64, its mask.
        cell: int64, the upper of the two cells.
        low: float32, what that cell holds.
        step: float64, change from one pixel to the next.
        per_pixel: float64, cells.
    """

    at: Ints
    owner: Ints
    cell: Ints
    low: Float32Array
    step: NDArray[np.float64]
    per_pixel: NDArray[np.float64]

    @classmethod
    def find(
        cls, group: _Group, column: Float32Array, mask: Ints, turns: Ints, at: Ints
    ) -> _Crossings:
        """Of places in the [N, G - 1] pairs of cells, and the columns that these are in."""
        cells = column.shape[1]
        lower = turns + at  # the same places in the [N, G] cells
        low, owner = column.take(lower), mask.take(at)
        per_pixel = _cells_per_pixel(group).take(owner)
        rise = column.take(lower + 1).astype(np.float64) - low
        return cls(at, owner, turns - at * (cells - 1), low, rise * per_pixel, per_pixel)

    def where(self, chosen: Bools) -> _Crossings:
        """Some of them."""
        kept = np.flatnonzero(chosen)
        parts = (self.at, self.owner, self.cell, self.low, self.step, self.per_pixel)
        return _Crossings(*(part.take(kept) for part in parts))  # type: ignore[arg-type]


def _crossing_rows(group: _Group, crossings: _Crossings, pixel_x: Ints) -> Ints:
    """First row of the box, in pixels, behind each crossing; int64 [E]."""
    step = crossings.step
    # The pixel's place has its centre half a pixel in, as the cell's has.
    pixel = (crossings.cell + 0.5) / crossings.per_pixel - 0.5
    pixel += (group.rule.threshold - crossings.low.astype(np.float64)) / step
    row: Ints = np.floor(pixel).astype(np.int64) + 1
    nearest = np.rint(pixel)
    unsure = np.flatnonzero(np.abs((pixel - nearest) * step) < group.pixel_band)
    if unsure.size:
        near, of = nearest[unsure].astype(np.int64), crossings.owner[unsure]
        is_in = evaluate_resized(
            group.grids_xy,
            of,
            pixel_x[crossings.at[unsure]],
            near.clip(0, group.size_wh[of, 1] - 1),
            group.size_wh[of],
            group.is_small[of],
            group.rule,
        )
        # Where it rises, what is in is behind the crossing.
        row[unsure] = near + (is_in != (step[unsure] > 0))
    return row
