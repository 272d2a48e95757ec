"""Decodes JPEGs at a fraction of their size, without the high frequencies of each block."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

HW = tuple[int, int]
TargetHw = Callable[[HW], HW]
_SCALES = (8, 4, 2)


def shrink(image: Image.Image, full_hw: HW, target_hw: TargetHw) -> None:
    """Set an opened JPEG to decode at the smallest scale that is not below the target size.

    Args:
        image: the JPEG; unchanged if the target needs the full size.
        full_hw: its height and width, upright.
        target_hw: gives the upright target size of a photo of that size.
    """
    scale = _scale(full_hw, target_hw(full_hw))
    if scale > 1:
        # Sides as stored, before the EXIF rotation. Pillow takes the largest scale whose sides are
        # not below these, which are rounded down.
        image.draft(None, (image.width // scale, image.height // scale))


def _scale(full_hw: HW, target_hw: HW) -> int:
    for scale in _SCALES:
        if min(full_hw) >= scale and all(
            # libjpeg rounds up.
            -(-full // scale) >= target
            for full, target in zip(full_hw, target_hw, strict=True)
        ):
            return scale
    return 1
