"""scikit-image's bilinear resize: pixels outside the image are zero and blend in at the edges.

It equals `skimage.transform.resize(order=1, mode="constant", anti_aliasing=False)`, version 0.19 or
later, which is `scipy.ndimage.zoom(order=1, mode="grid-constant", grid_mode=True)` and a clip to
the range of the input. The caller truncates to integers, so the order of operations matters: a
constant 128 that came out as 127.99… would lose a level.

Legend: h, w sides of the source; H, W sides of the result, all in pixels.
"""

from __future__ import annotations

import numpy as np

from model.arrays import Float64, Int64, UInt8

# Rows of a block: its float64 planes then fit in the processor's cache.
_BLOCK_ROWS = 32


def taps(pixel: Int64, source: int, target: int | Int64) -> tuple[Int64, Float64]:
    """Positions of target pixels in the source.

    Args:
        pixel: int64 [P], target pixels, each from 0 to target - 1.
        source: pixels of the source.
        target: pixels of the result, one number or one per pixel.

    Returns:
        int64 [P], the source pixel before each, from -1 to source - 1; float64 [P], its distance
        from there, the weight of the next one.

    Source: scipy `NI_ZoomShift` with `grid_mode`.
    """
    center = (pixel + 0.5) * (source / target) - 0.5
    before = np.floor(center)
    return before.astype(np.int64), center - before


def resize_uint8(photo: UInt8, hw: tuple[int, int]) -> UInt8:
    """Resize a photo and truncate it, as `resize(photo, …, preserve_range=True)` and a cast do.

    Args:
        photo: uint8 [h, w, 3].
        hw: H and W.

    Returns:
        uint8 [3, H, W].

    Source: Matterport `utils.resize_image`; skimage `transform.resize`, `_clip_warp_output`.
    """
    lowest, highest = float(photo.min()), float(photo.max())
    planes = np.pad(photo.transpose(2, 0, 1), ((0, 0), (1, 1), (1, 1)))
    row, down = taps(np.arange(hw[0]), photo.shape[0], hw[0])
    column, right = taps(np.arange(hw[1]), photo.shape[1], hw[1])
    column = column + 1
    resized = np.empty((photo.shape[2], *hw), np.uint8)
    for start in range(0, hw[0], _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        weight = down[block, None]
        upper = planes.take(row[block] + 1, axis=1) * (1.0 - weight)  # [3, rows, w + 2]
        lower = planes.take(row[block] + 2, axis=1) * (1.0 - (1.0 - weight))
        total = upper.take(column, axis=2) * (1.0 - right)
        total += upper.take(column + 1, axis=2) * (1.0 - (1.0 - right))
        total += lower.take(column, axis=2) * (1.0 - right)
        total += lower.take(column + 1, axis=2) * (1.0 - (1.0 - right))
        resized[:, block] = total.clip(lowest, highest)
    return resized
