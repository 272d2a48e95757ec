"""JPEGs decoded at a fraction of their size, by leaving out frequencies of each block."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

HW = tuple[int, int]
WantedHw = Callable[[HW], HW]
_SCALES = (8, 4, 2)


def shrink(image: Image.Image, full_hw: HW, wanted_hw: WantedHw) -> None:
    """Make an opened, unread JPEG load at the smallest scale that is not below the wanted size.

    Args:
        image: the JPEG; left as it is where only the full size will do.
        full_hw: its height and width, upright.
        wanted_hw: answers the upright height and width wanted of a photo of that size.
    """
    scale = _scale(full_hw, wanted_hw(full_hw))
    if scale > 1:
        # Sides as stored, which EXIF may turn later. Pillow takes the largest scale that divides
        # both sides into at least these, and these are rounded down.
        image.draft(None, (image.width // scale, image.height // scale))


def _scale(full_hw: HW, wanted_hw: HW) -> int:
    for scale in _SCALES:
        if min(full_hw) >= scale and all(
            # libjpeg rounds up.
            -(-full // scale) >= wanted
            for full, wanted in zip(full_hw, wanted_hw, strict=True)
        ):
            return scale
    return 1
