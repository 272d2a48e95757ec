"""The pixels of the image that detections were made from, for what is painted on or cut from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from model.arrays import UInt8
from model.errors import ImageError
from runtime.sources.photos import decode

if TYPE_CHECKING:
    from runtime.detections import Detections


def original_pixels(what: str, image: Image.Image | UInt8, detections: Detections) -> UInt8:
    """The image as the network was given it, uint8 [H, W, 3] RGB; not to be changed.

    A Pillow image is read as `runtime.sources.photos.decode` reads it, so turned upright by the
    EXIF orientation that it carries.

    Args:
        what: What a message begins with.
        image: The original image; an array is uint8 [H, W, 3] RGB.
        detections: What was found in it.

    Raises:
        ImageError: It does not have the size in which the detections are given.
    """
    pixels = decode(image) if isinstance(image, Image.Image) else np.asarray(image)
    expected = (*detections.image_hw, 3)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise ImageError(
            f"expected an RGB image as uint8 {list(expected)}, got {pixels.dtype} "
            f"{list(pixels.shape)}; pass the image that the detections were made from",
            what,
        )
    return pixels
