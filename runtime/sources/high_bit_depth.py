"""Gray images of more than 8 bits, reduced to the high 8."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.arrays import UInt8
from model.errors import ImageError

# Tags of TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow stores the image as integers of more than 8 bits, or as floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def high_byte(image: Image.Image, gray: npt.NDArray[Any]) -> UInt8:
    """The high 8 of 12 or 16 bits, as RGB.

    Pillow's own conversion saturates at 255. Pillow also leaves TIFF's 12-bit values unscaled, and
    does not invert values with white as 0. Integers of other images than TIFFs count as 16 bits.

    Args:
        image: source of the values, for its TIFF tags.
        gray: its values, [h, w].

    Returns:
        uint8 [h, w, 3].

    Raises:
        ImageError: floats, 32 bits, or values that exceed 16 bits.
    """
    tags = getattr(image, "tag_v2", {})
    bits = _first(tags.get(_BITS_PER_SAMPLE), 16)
    if gray.dtype.kind == "f" or bits > 16 or gray.min() < 0 or gray.max() >> bits:
        raise ImageError(
            f"{gray.dtype} pixels from {gray.min():g} to {gray.max():g}; expected 8 or "
            "16 bits per channel; convert it"
        )
    high = (gray.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    if _first(tags.get(_PHOTOMETRIC), None) == _WHITE_IS_ZERO:
        high = ~high
    return np.repeat(high[:, :, None], 3, axis=2)


def _first(value: Any, default: Any) -> Any:
    """A tag's only or first value; Pillow returns some tags as a tuple of one."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    return default if value is None else value
