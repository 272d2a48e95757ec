"""From M x M mask probabilities to exact binary crops of the image, only inside the box.

Two rules equal torch's float32 results on a CPU with fused multiply-adds (its AVX2 and AVX-512
kernels) to the bit, and one equals scikit-image's:

* "integer", torchvision's `paste_masks_in_image`: pad the mask by one cell, grow the box by
  (M + 2) / M, truncate it to integers, resize the mask onto it bilinearly.
* "float", detectron2's `paste_masks_in_image`: sample the mask at the pixel centers of the box
  and of one pixel around it, zeros outside the mask.
* "resize", Matterport's `unmold_mask`: resize the mask to the integer box, in float64, with zeros
  around it, and clip to the mask's own range.

All are separable, so a crop is two small matrix products. These round differently, by a few
1e-7, so pixels that close to the threshold are evaluated again in the framework's own order of
operations. Crops are computed transposed, [w, h], because COCO's run lengths go down the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.arrays import Bool, Float32, Float64, Int64
from runtime.preprocessing.skimage_bilinear import taps

if TYPE_CHECKING:
    from model.spec import PasteRule

Weights = Float32 | Float64

# One zero cell before the mask and two after it, so that every sample has an upper neighbor.
CELLS_BEFORE, CELLS_AFTER = 1, 2
# More than ten times the rounding error of either order of operations.
_RECOMPUTE_WITHIN = 4e-6
# Up to this many products OpenBLAS uses only the calling thread. Its other threads would cost more
# than they save here, and a hundred times more on a busy machine.
_BLOCK_PRODUCTS = 1 << 18
# Up to this height + width torch uses another resize kernel, which rounds differently.
SMALL_KERNEL_PX = 128
_COORDINATE_LIMIT_PX = np.float32(2.0**31)
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)

# Four corners and their weights, each [P], to P probabilities in the framework's order of
# operations; weights are float64 if the framework's are.
_Quad = tuple[Float32, Float32, Float32, Float32]
_Operand = Float32 | np.float32
_Exact = Callable[[_Quad, Any], Float32]


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Paste rule and threshold of a mask, as in `model.spec.MaskHeadSpec`."""

    paste: PasteRule = "integer"
    threshold: float = 0.5
    threshold_inclusive: bool = False

    def __post_init__(self) -> None:
        # At zero or less every pixel outside the box would be foreground.
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(
                f"mask threshold: expected a number between 0 and 1, got {self.threshold}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class MaskCrop:
    """A binary mask cut to its box inside the image; everything outside is background.

    `columns` is bool [w, h], the transposed crop; its first pixel is at (`x0_px`, `y0_px`) of the
    image.
    """

    x0_px: int
    y0_px: int
    columns: Bool

    @property
    def rows(self) -> Bool:
        """The crop as bool [h, w], a view."""
        return self.columns.T


@dataclass(frozen=True, slots=True, eq=False)
class ResizeAxis:
    """Linear interpolation along one axis of the padded mask, for the visible pixels.

    Pixel `start_px + i` is `weight0[i] * grid[cell[i]] + weight1[i] * grid[cell[i] + 1]`.
    """

    start_px: int
    cell: Int64
    weight0: Weights
    weight1: Weights

    def matrix(self, cells: int) -> Float32:
        """The weights as float32 [pixels, cells], two entries in a row."""
        pixels = self.cell.size
        dense = np.zeros(pixels * cells, np.float32)
        lower = np.arange(0, pixels * cells, cells) + self.cell
        dense[lower] = self.weight0
        dense[lower + 1] = self.weight1
        return dense.reshape(pixels, cells)


def paste_crops(
    mask_probs: Float32, boxes_xyxy: Float32, image_hw: tuple[int, int], rule: MaskRule
) -> Iterator[MaskCrop]:
    """Paste each mask into its box and threshold it.

    Args:
        mask_probs: float32 [D, M, M], probabilities, finite.
        boxes_xyxy: float32 [D, 4], original-image pixels, finite; they may leave the image.
        image_hw: Height and width of the image in pixels.
        rule: Paste rule and threshold.

    Yields:
        One crop per mask, empty if the box is inverted or outside the image.
    """
    side = mask_probs.shape[-1]
    grids = padded_grids(mask_probs)
    if rule.paste == "integer":
        for grid, box in zip(grids, grown_integer_boxes(boxes_xyxy, side).tolist(), strict=True):
            yield _paste_integer(grid, box, image_hw, rule)
    elif rule.paste == "resize":
        for grid, box in zip(grids, _integers(boxes_xyxy).tolist(), strict=True):
            yield _paste_resized(grid, box, image_hw, rule)
    else:
        for grid, float_box in zip(grids, boxes_xyxy, strict=True):
            yield _paste_float(grid, float_box, image_hw, rule)


def padded_grids(mask_probs: Float32) -> Float32:
    """Zero cells around each mask, float32 [D, M, M] to [D, M + 3, M + 3]."""
    return np.pad(mask_probs, ((0, 0), (CELLS_BEFORE, CELLS_AFTER), (CELLS_BEFORE, CELLS_AFTER)))


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


def _paste_integer(
    grid: Float32, box_xyxy: list[int], image_hw: tuple[int, int], rule: MaskRule
) -> MaskCrop:
    x0, y0, x1, y1 = box_xyxy
    small = (x1 - x0 + 1) + (y1 - y0 + 1) <= SMALL_KERNEL_PX
    across = resize_axis(x0, x1, image_hw[1], len(grid), small)
    down = resize_axis(y0, y1, image_hw[0], len(grid), small)
    return _cut(grid, across, down, rule, _small_resize if small else _large_resize)


def resize_axis(first_px: int, last_px: int, extent_px: int, cells: int, small: bool) -> ResizeAxis:
    """Torch's bilinear resize without `align_corners`, of the mask with one cell of padding."""
    size_out = max(last_px - first_px + 1, 1)
    start, stop = max(first_px, 0), min(last_px + 1, extent_px)
    pixel = np.arange(start - first_px, stop - first_px)
    sizes, smalls = np.full(pixel.size, size_out), np.full(pixel.size, small)
    cell, upper = resize_taps(pixel, sizes, smalls, cells)
    return ResizeAxis(start, cell, _ONE - upper, upper)


def resize_taps(pixel: Int64, size_out: Int64, is_small: Bool, cells: int) -> tuple[Int64, Float32]:
    """Torch's float32 index arithmetic: lower cell and weight of the upper one, [P] each.

    Args:
        pixel: int64 [P], offset in the box.
        size_out: int64 [P], side of the box in pixels.
        is_small: bool [P], whether torch uses its kernel for small outputs.
        cells: cells of a padded grid, G.
    """
    size_in = cells - 1
    center = pixel.astype(np.float32) + _HALF
    scale = np.float32(size_in) / size_out.astype(np.float32)
    source = center * scale - _HALF
    if is_small.any():
        source = np.where(is_small, _fma(center, scale, -_HALF), source)
    source = np.maximum(source, np.float32(0))
    cell = np.minimum(source.astype(np.int64), size_in - 1)
    return cell, np.minimum(source - cell.astype(np.float32), _ONE)


def _paste_float(
    grid: Float32, box_xyxy: Float32, image_hw: tuple[int, int], rule: MaskRule
) -> MaskCrop:
    x0, y0, x1, y1 = box_xyxy
    across = _sample_axis(x0, x1, image_hw[1], len(grid))
    down = _sample_axis(y0, y1, image_hw[0], len(grid))
    return _cut(grid, across, down, rule, _grid_sample)


def _sample_axis(low: np.float32, high: np.float32, extent_px: int, cells: int) -> ResizeAxis:
    """Torch's `grid_sample` without `align_corners` at the centers of the box's pixels."""
    start, stop = (int(end) for end in sampled_pixels(low, high, extent_px))
    return ResizeAxis(start, *sample_taps(np.arange(start, stop), low, high, cells))


def sampled_pixels(
    low: Float32 | np.float32, high: Float32 | np.float32, extent_px: int
) -> tuple[Int64, Int64]:
    """First and end pixel of the image for "float" boxes."""
    # In float64: float32 rounds the extent of an image beyond 2^24 pixels.
    start = (np.floor(low) - _ONE).astype(np.float64).clip(0, extent_px).astype(np.int64)
    stop = (np.ceil(high) + _ONE).astype(np.float64).clip(0, extent_px).astype(np.int64)
    return start, np.where(high > low, np.maximum(stop, start), start)


def sample_taps(
    pixel: Int64,
    low: Float32 | np.float32,
    high: Float32 | np.float32,
    cells: int,
) -> tuple[Int64, Float32, Float32]:
    """Lower cell, its weight and the upper one's, [P] each; both 0 outside the mask.

    Args:
        pixel: int64 [P], of the image.
        low: float32 [P] or a scalar, start of the box.
        high: float32 [P] or a scalar, end of the box.
        cells: cells of a padded grid, G.
    """
    side = cells - CELLS_BEFORE - CELLS_AFTER
    center = pixel.astype(np.float32) + _HALF
    unit = (center - low) / (high - low) * _TWO - _ONE
    source = _fma(unit + _ONE, np.float32(side) / _TWO, -_HALF)
    below = np.floor(source)
    upper = source - below
    cell = below.astype(np.int64) + CELLS_BEFORE
    inside = (cell >= 0) & (cell <= side)
    zero = np.float32(0)
    return (
        np.where(inside, cell, 0),
        np.where(inside, _ONE - upper, zero),
        np.where(inside, upper, zero),
    )


def _paste_resized(
    grid: Float32, box_xyxy: list[int], image_hw: tuple[int, int], rule: MaskRule
) -> MaskCrop:
    x0, y0, x1, y1 = box_xyxy
    side = len(grid) - CELLS_BEFORE - CELLS_AFTER
    across = _zoom_axis(x0, x1, image_hw[1], side)
    down = _zoom_axis(y0, y1, image_hw[0], side)
    # Zeros blend in at the edges, but the result is clipped to the mask's smallest probability.
    lowest = grid[CELLS_BEFORE:-CELLS_AFTER, CELLS_BEFORE:-CELLS_AFTER].min()
    if _is_foreground(lowest, rule):
        whole = np.ones((across.cell.size, down.cell.size), np.bool_)
        return MaskCrop(across.start_px, down.start_px, whole)
    return _cut(grid, across, down, rule, _zoom)


def _zoom_axis(first_px: int, end_px: int, extent_px: int, cells: int) -> ResizeAxis:
    """scikit-image's resize of a mask to the pixels of its box."""
    start, stop = max(first_px, 0), min(end_px, extent_px)
    pixel = np.arange(start - first_px, stop - first_px)
    before, upper = taps(pixel, cells, max(end_px - first_px, 1))
    weight0 = 1.0 - upper
    return ResizeAxis(start, before + CELLS_BEFORE, weight0, 1.0 - weight0)


def _cut(
    grid: Float32, across: ResizeAxis, down: ResizeAxis, rule: MaskRule, exact: _Exact
) -> MaskCrop:
    """Interpolate and threshold, in blocks of columns that fit in the processor's cache."""
    width, height, cells = across.cell.size, down.cell.size, len(grid)
    bits = np.empty((width, height), np.bool_)
    if bits.size:
        to_columns = across.matrix(cells)
        to_rows = np.ascontiguousarray(down.matrix(cells).T)
        step = max(1, _BLOCK_PRODUCTS // (cells * max(height, cells)))
        for first in range(0, width, step):
            block = bits[first : first + step]
            probs = np.matmul(to_columns[first : first + step] @ grid.T, to_rows)
            column, row = _threshold_into(block, probs, rule.threshold)
            if column.size:
                again = _evaluate(grid, across, down, column + first, row, exact)
                block[column, row] = _is_foreground(again, rule)
    return MaskCrop(across.start_px, down.start_px, bits)


def _threshold_into(out: Bool, probs: Float32, threshold: float) -> tuple[NDArray[np.intp], ...]:
    """Fill `out`; returns the indices of pixels too close to the threshold."""
    np.greater(probs, np.float32(threshold + _RECOMPUTE_WITHIN), out=out)
    at_least = probs > np.float32(threshold - _RECOMPUTE_WITHIN)
    if np.count_nonzero(at_least) == np.count_nonzero(out):
        none = np.empty(0, np.intp)
        return none, none
    return np.nonzero(at_least != out)


def _is_foreground(probs: Float32, rule: MaskRule) -> Bool:
    threshold = np.float32(rule.threshold)
    return probs >= threshold if rule.threshold_inclusive else probs > threshold


def _evaluate(
    grid: Float32,
    across: ResizeAxis,
    down: ResizeAxis,
    column: NDArray[np.intp],
    row: NDArray[np.intp],
    exact: _Exact,
) -> Float32:
    """Exact probabilities of single pixels, given by their indices in the crop."""
    x, y = across.cell[column], down.cell[row]
    corners = (grid[y, x], grid[y, x + 1], grid[y + 1, x], grid[y + 1, x + 1])
    weights = (across.weight0[column], across.weight1[column], down.weight0[row], down.weight1[row])
    return exact(corners, weights)


def _large_resize(corners: _Quad, weights: _Quad) -> Float32:
    """Torch's generic upsampling kernel: along x first, then along y."""
    x0, x1, y0, y1 = weights
    top = _fma(corners[0], x0, corners[1] * x1)
    bottom = _fma(corners[2], x0, corners[3] * x1)
    return _fma(top, y0, bottom * y1)


def _small_resize(corners: _Quad, weights: _Quad) -> Float32:
    """Torch's upsampling kernel for small outputs: products of the weights first."""
    x0, x1, y0, y1 = weights
    total = _fma(corners[0], x0 * y0, corners[1] * (x1 * y0))
    return _fma(corners[3], x1 * y1, _fma(corners[2], x0 * y1, total))


def _grid_sample(corners: _Quad, weights: _Quad) -> Float32:
    """Torch's vectorized `grid_sample`; it differs from the above in the first rounding."""
    x0, x1, y0, y1 = weights
    total = _fma(corners[1], x1 * y0, corners[0] * (x0 * y0))
    return _fma(corners[3], x1 * y1, _fma(corners[2], x0 * y1, total))


def _zoom(corners: _Quad, weights: tuple[Float64, ...]) -> Float32:
    """scikit-image: each corner times its row's weight, then its column's, summed in order."""
    x0, x1, y0, y1 = weights
    total = corners[0] * y0 * x0 + corners[1] * y0 * x1
    return (total + corners[2] * y1 * x0 + corners[3] * y1 * x1).astype(np.float32)


def _fma(a: Float32, b: _Operand, c: _Operand) -> Float32:
    """Fused multiply-add: a float32 product is exact in float64, so only the sum is rounded."""
    return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)
