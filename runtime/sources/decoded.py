"""What decoding answers, and how large a photo may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.errors import ImageError

MAX_PIXELS = 178_956_970


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded photo.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, upright.
        full_hw: height and width of the whole photo, upright; `pixels` is smaller where it was
            decoded at a fraction of them.
    """

    pixels: npt.NDArray[np.uint8]
    full_hw: tuple[int, int]


def check_size(width: int, height: int, where: str) -> None:
    """Refuse what is empty, or larger than `MAX_PIXELS`.

    Raises:
        ImageError: with this `where`.
    """
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width}x{height}; expected at least 1x1", where)
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}x{height} is more than {MAX_PIXELS} pixels; scale it down", where)
