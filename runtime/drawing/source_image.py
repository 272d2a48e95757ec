"""The pixels of the image that detections were made from, to draw on or cut from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from model.arrays import UInt8
from model.errors import ImageError, UsageError
from runtime.sources.photos import decode
from runtime.sources.pixel_format import PixelFormat, Pixels, to_bytes

if TYPE_CHECKING:
    from runtime.detections import Detections


def displayed(pixels: Pixels, form: PixelFormat, bands: Sequence[int] | None = None) -> UInt8:
    """A photo's bands as an image to draw on, uint8 [H, W, 3].

    Args:
        pixels: as decoded for a model, [H, W, C].
        form: of the model.
        bands: the bands of red, green and blue, or one for gray, counted from 1; None takes the
            first three, or the first one if there are fewer.

    Raises:
        UsageError: see `require_bands`.
    """
    if form.is_rgb and bands is None:
        return pixels
    require_bands(bands, form.channels)
    chosen = bands or ((1, 2, 3) if form.channels >= 3 else (1,))
    # Of three each, also where one band is gray.
    columns = [chosen[i % len(chosen)] - 1 for i in range(3)]
    return to_bytes(form.scaled(pixels[:, :, columns]))


def require_bands(bands: Sequence[int] | None, channels: int) -> None:
    """Require one or three bands of the model's photos.

    Raises:
        UsageError: another number of them, or a band that the photos lack.
    """
    if bands is not None and not (
        len(bands) in (1, 3) and all(1 <= band <= channels for band in bands)
    ):
        raise UsageError(
            f"--bands: expected one or three bands from 1 to {channels}, the model's channels, got "
            f"{','.join(map(str, bands))}"
        )


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
