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
from runtime.masks.axes import (
    CELLS_AFTER,
    CELLS_BEFORE,
    GRID_SAMPLE,
    LARGE_RESIZE,
    SMALL_RESIZE,
    ZOOM,
    BoxAxis,
    Weights,
    box_axes,
    fma,
)

if TYPE_CHECKING:
    from model.spec import PasteRule

# More than ten times the rounding error of either order of operations.
_RECOMPUTE_WITHIN = 4e-6
# Up to this many products OpenBLAS uses only the calling thread. Its other threads would cost more
# than they save here, and a hundred times more on a busy machine.
_BLOCK_PRODUCTS = 1 << 18

# Four corners, and weights of two columns and two rows, each [P].
_Quad = tuple[Float32, Float32, Float32, Float32]


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
class _CropAxis:
    """Linear interpolation along one axis of one padded mask.

    Pixel `start_px + i` is `weights[0, i] * grid[cell[i]] + weights[1, i] * grid[cell[i] + 1]`.
    """

    start_px: int
    cell: Int64
    weights: Weights

    @classmethod
    def of(cls, axis: BoxAxis, mask: int) -> _CropAxis:
        return cls(int(axis.first[mask]), *axis.table(slice(mask, mask + 1)))

    def matrix(self, cells: int) -> Float32:
        """The weights as float32 [pixels, cells], two entries in a row."""
        pixels = self.cell.size
        dense = np.zeros(pixels * cells, np.float32)
        lower = np.arange(0, pixels * cells, cells) + self.cell
        dense[lower], dense[lower + 1] = self.weights
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
    across, down, orders = box_axes(boxes_xyxy, mask_probs.shape[-1], image_hw, rule.paste)
    for mask, grid in enumerate(padded_grids(mask_probs)):
        columns, rows = _CropAxis.of(across, mask), _CropAxis.of(down, mask)
        # Zeros blend in at the edges, but scikit-image clips to the mask's smallest probability.
        if rule.paste == "resize" and _is_foreground(mask_probs[mask].min(), rule):
            whole = np.ones((columns.cell.size, rows.cell.size), np.bool_)
            yield MaskCrop(columns.start_px, rows.start_px, whole)
        else:
            yield _crop(grid, columns, rows, rule, _EXACT[orders[mask]])


def padded_grids(mask_probs: Float32) -> Float32:
    """Zero cells around each mask, float32 [D, M, M] to [D, M + 3, M + 3]."""
    return np.pad(mask_probs, ((0, 0), (CELLS_BEFORE, CELLS_AFTER), (CELLS_BEFORE, CELLS_AFTER)))


def _crop(
    grid: Float32, across: _CropAxis, down: _CropAxis, rule: MaskRule, exact: _Exact
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
    across: _CropAxis,
    down: _CropAxis,
    column: NDArray[np.intp],
    row: NDArray[np.intp],
    exact: _Exact,
) -> Float32:
    """Exact probabilities of single pixels, given by their indices in the crop."""
    x, y = across.cell[column], down.cell[row]
    corners = (grid[y, x], grid[y, x + 1], grid[y + 1, x], grid[y + 1, x + 1])
    return exact(corners, (*across.weights[:, column], *down.weights[:, row]))


def _large_resize(corners: _Quad, weights: _Quad) -> Float32:
    """Torch's generic upsampling kernel: along x first, then along y."""
    x0, x1, y0, y1 = weights
    top = fma(corners[0], x0, corners[1] * x1)
    bottom = fma(corners[2], x0, corners[3] * x1)
    return fma(top, y0, bottom * y1)


def _small_resize(corners: _Quad, weights: _Quad) -> Float32:
    """Torch's upsampling kernel for small outputs: products of the weights first."""
    x0, x1, y0, y1 = weights
    total = fma(corners[0], x0 * y0, corners[1] * (x1 * y0))
    return fma(corners[3], x1 * y1, fma(corners[2], x0 * y1, total))


def _grid_sample(corners: _Quad, weights: _Quad) -> Float32:
    """Torch's vectorized `grid_sample`; it differs from the above in the first rounding."""
    x0, x1, y0, y1 = weights
    total = fma(corners[1], x1 * y0, corners[0] * (x0 * y0))
    return fma(corners[3], x1 * y1, fma(corners[2], x0 * y1, total))


def _zoom(corners: _Quad, weights: tuple[Float64, ...]) -> Float32:
    """scikit-image: each corner times its row's weight, then its column's, summed in order."""
    x0, x1, y0, y1 = weights
    total = corners[0] * y0 * x0 + corners[1] * y0 * x1
    return (total + corners[2] * y1 * x0 + corners[3] * y1 * x1).astype(np.float32)


# By order of operations: four corners and four weights to the framework's exact probabilities.
_Exact = Callable[[_Quad, Any], Float32]
_EXACT: dict[int, _Exact] = {
    LARGE_RESIZE: _large_resize,
    SMALL_RESIZE: _small_resize,
    GRID_SAMPLE: _grid_sample,
    ZOOM: _zoom,
}
