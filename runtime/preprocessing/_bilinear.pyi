"""The C kernel of `runtime.preprocessing.torch_bilinear`; absent if built without a compiler."""

import numpy as np
import numpy.typing as npt

def resize(
    planes: npt.NDArray[np.float32],
    rows: npt.NDArray[np.uint8],
    top: npt.NDArray[np.int32],
    bottom: npt.NDArray[np.int32],
    low: npt.NDArray[np.float32],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    /,
) -> None:
    """Fill the planes, with the interpreter's lock released.

    Args:
        planes: float32 [3, H, W], filled; the pixels of a row are contiguous.
        rows: uint8 [h, 3 w], a photo.
        top: int32 [H], the upper row of each.
        bottom: int32 [H], the lower one.
        low: float32 [H], weight of the lower row.
        left: int32 [3, W], the left byte of each.
        right: int32 [3, W], the right one.
        weights: float32 [2, W], of the left and the right byte.

    Raises:
        ValueError: another dtype or shape.
        IndexError: a row or byte outside the photo.
    """
