"""Grey images of more than 8 bits, of which the high 8 are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.errors import ImageError

# Tags of TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow holds it as integers of more than 8 bits, or as floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def high_byte(image: Image.Image, grey: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    """The high 8 of 12 or 16 bits, as RGB.

    Pillow's own conversion saturates at 255 instead. It also hands out TIFF's 12-bit values as
    they are, and those where white is 0 without turning them over. Integers of a Pillow image
    that was not read from a TIFF count as 16 bits.

    Args:
        image: what it was read from, for TIFF's tags.
        grey: its values, [h, w].
        where: the image's name, for messages.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ImageError: floats, 32 bits, or values beyond 16.
    """
    tags = getattr(image, "tag_v2", {})
    bits = _first(tags.get(_BITS_PER_SAMPLE), 16)
    if grey.dtype.kind == "f" or bits > 16 or grey.min() < 0 or grey.max() >> bits:
        raise ImageError(
            f"{grey.dtype} pixels from {grey.min():g} to {grey.max():g}; expected 8 or 16 bits per "
            "channel; convert it",
            where,
        )
    high = (grey.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    if _first(tags.get(_PHOTOMETRIC), None) == _WHITE_IS_ZERO:
        high = ~high
    return np.repeat(high[:, :, None], 3, axis=2)


def _first(value: Any, default: Any) -> Any:
    """A tag's only or first value; Pillow answers some as a tuple of one."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    return default if value is None else value
