"""The C kernel of `runtime.masks.rle_from_masks`; absent if built without a compiler."""

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
    """Paste, threshold and encode, with the interpreter's lock released.

    Other threads must not write to the arrays meanwhile: indices are checked once, at the start.

    Args:
        grids: float32 [D, G, G], probabilities padded with zeros, x first.
        orders: uint8 [D], order of operations of a pixel: 0 torch's resize of large outputs, 1 of
            small ones, 2 its `grid_sample`.
        first: int32 [D, 2], the first column and row of each mask in the image.
        count: int32 [D, 2], its columns and rows there; both 0 or neither.
        cell_x: int32 [N], the left one of the two cells of every column, mask after mask.
        weight_x: float32 [2, N], of the left and the right cell; both 0 outside a mask.
        cell_y: int32 [R], the upper one of the two cells of every row, mask after mask.
        weight_y: float32 [2, R], of the upper and the lower cell.
        height: of the image in pixels.
        width: of the image in pixels.
        threshold: probabilities above it are foreground.
        inclusive: whether the threshold itself is foreground.

    Returns:
        COCO's compressed run lengths of each mask.

    Raises:
        ValueError: another dtype or shape.
        IndexError: a cell outside the grid, or a pixel outside the image.
    """
