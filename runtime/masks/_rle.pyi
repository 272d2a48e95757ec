"""The compiled loops of `runtime.masks.rle_from_masks`; absent if built without a compiler."""

import numpy as np
import numpy.typing as npt

def encode(
    grids: npt.NDArray[np.float32],
    orders: npt.NDArray[np.uint8],
    first: npt.NDArray[np.int32],
    count: npt.NDArray[np.int32],
    cell_x: npt.NDArray[np.int32],
    weight_x: npt.NDArray[np.float32],
    cell_y: npt.NDArray[np.int32],
    weight_y: npt.NDArray[np.float32],
    height: int,
    width: int,
    threshold: float,
    inclusive: bool,
    /,
) -> list[str]:
    """Paste, threshold and encode; the interpreter's lock is released meanwhile.

    Other threads must not write to the arrays meanwhile: they are checked once, at the start.

    Args:
        grids: float32 [D, G, G], probabilities with cells of zero around them, x first.
        orders: uint8 [D], order of operations of a pixel: 0 torch's resize of large outputs, 1 of
            small ones, 2 its `grid_sample`.
        first: int32 [D, 2], the first column and row of each mask in the image.
        count: int32 [D, 2], its columns and rows there; both 0 or neither.
        cell_x: int32 [N], the left one of the two cells of every column, mask after mask.
        weight_x: float32 [2, N], of the left and the right cell; both 0 outside a mask.
        cell_y: int32 [R], the upper one of the two cells of every row, mask after mask.
        weight_y: float32 [2, R], of the upper and the lower cell.
        height: of the image in pixels.
        width: idem.
        threshold: what is above it is in the mask.
        inclusive: what is equal to it is, too.

    Returns:
        COCO's compressed run lengths of each.

    Raises:
        ValueError: another type or shape.
        IndexError: a cell that the grid does not have, or a pixel that the image does not have.
    """
