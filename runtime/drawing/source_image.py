"""The pixels of the image that detections were made from, to draw on or cut from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from model.arrays import UInt8
from model.errors import ImageError
from runtime.sources.photos import decode

if TYPE_CHECKING:
    from runtime.detections import Detections


def source_pixels(where: str, image: Image.Image | UInt8, detections: Detections) -> UInt8:
    """The image's pixels, uint8 [H, W, 3] RGB, read-only for the caller.

    A Pillow image is decoded as by `runtime.sources.photos.decode`, so it is turned upright by its
    EXIF orientation.

    Args:
        where: Start of a message.
        image: The original image; an array is uint8 [H, W, 3] RGB.
        detections: Of this image.

    Raises:
        ImageError: The image has another size than the detections.
    """
    pixels = decode(image) if isinstance(image, Image.Image) else np.asarray(image)
    expected = (*detections.image_hw, 3)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise ImageError(
            f"expected an RGB image as uint8 {list(expected)}, got {pixels.dtype} "
            f"{list(pixels.shape)}; pass the image that the detections were made from",
            where,
        )
    return pixels
