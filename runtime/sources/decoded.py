"""A decoded photo, its size, and the limit of that."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import ImageError
from runtime.sources.pixel_format import Pixels

MAX_PIXELS = 178_956_970


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded photo.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, upright; of other models [h, w, C] as stored.
        full_hw: upright height and width of the whole photo; `pixels` is smaller if it was decoded
            at a fraction of it.
    """

    pixels: Pixels
    full_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class UprightSize:
    """The size of a decoded photo.

    Attributes:
        hw: upright height and width.
        is_turned: whether its orientation rotates or mirrors the stored pixels, or may do so.
    """

    hw: tuple[int, int]
    is_turned: bool


def whole(pixels: Pixels) -> Decoded:
    """A photo decoded at its full size."""
    return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))


def check_size(width: int, height: int) -> None:
    """Refuse an empty photo and one larger than `MAX_PIXELS`.

    Raises:
        ImageError: Otherwise.
    """
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width}x{height}; expected at least 1x1")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}x{height} is more than {MAX_PIXELS} pixels; scale it down")
