"""Decodes photos for models of other channels than RGB, and photos with a range of values.

Samples keep their stored values; `runtime.sources.pixel_format` scales them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.errors import ImageError, image_named
from runtime.sources import deep_png, pillow, tiff
from runtime.sources.decoded import check_size
from runtime.sources.pixel_format import PixelFormat, Pixels, other_channels
from runtime.sources.regular_file import open_regular
from runtime.sources.tiff import Samples

_SIDEWAYS = (5, 6, 7, 8)


def decode(photo: object, form: PixelFormat) -> Pixels:
    """Decode a file, a Pillow image or an array to the model's channels.

    As `runtime.sources.photos.decode`, but bands keep their stored values, and their number must be
    the model's. Transparency is a band where the model takes one more than the colors, and dropped
    otherwise. A TIFF file has its bands in one page, or one band in each of its pages.

    Args:
        photo: as there; arrays are [h, w, C], or [h, w] for one channel.
        form: the model's channels and the range of values.

    Returns:
        [h, w, C] of the stored type.

    Raises:
        ImageError: as there; another number of bands; samples that need a range.
        MissingDependencyError: a TIFF file of several bands, without tifffile.
    """
    if isinstance(photo, np.ndarray):
        pixels = _from_array(photo, form)
    elif isinstance(photo, Image.Image):
        with pillow.pillow_errors():
            pixels = _fitted(_from_pillow(photo, None), form)
    elif isinstance(photo, str | os.PathLike):
        with image_named(str(photo)):
            return _from_file(Path(photo), form)
    else:
        raise ImageError(f"expected a path, a Pillow image or an array, got {type(photo).__name__}")
    form.check(pixels)
    return pixels


def _from_file(path: Path, form: PixelFormat) -> Pixels:
    with open_regular(path) as file, pillow.pillow_errors():
        pixels = _fitted(_samples(file, form.channels), form)
        form.check(pixels)
        return pixels


def _samples(file: BinaryIO, channels: int) -> Samples:
    is_tiff = tiff.is_tiff(file)
    try:
        image = pillow.opened(file)
    except ImageError:
        if not is_tiff:
            raise
        return tiff.read(file, channels)
    with image:
        check_size(image.width, image.height)
        if not is_tiff:
            return _from_pillow(image, file)
        bands = getattr(image, "tag_v2", {}).get(277, 1)
        pages = getattr(image, "n_frames", 1)
        if bands == 1 and (channels == 1 or pages != channels):
            return _from_pillow(image, None)
    return tiff.read(file, channels)


def _from_pillow(image: Image.Image, file: BinaryIO | None) -> Samples:
    check_size(image.width, image.height)
    image.load()
    orientation = pillow.orientation(image)
    if file is not None and (bands := deep_png.channels_of_deep(file)) is not None:
        values: npt.NDArray[Any] = deep_png.read(file, bands)
        return Samples(values, "16-bit PNG", 16, bands != 3, orientation)
    if pillow.is_deep(image):
        return _deep_gray(image, orientation)
    plain = image
    if image.mode == "La":
        plain = image.convert("LA")
    elif image.mode == "RGBa":
        plain = image.convert("RGBA")
    elif image.mode == "1":
        plain = image.convert("L")
    is_plain = plain.mode in ("L", "LA", "RGB", "RGBA")
    values = np.asarray(plain) if is_plain else pillow.rgb(plain)
    values = values[:, :, None] if values.ndim == 2 else values
    has_alpha = plain.mode in ("LA", "RGBA")
    return Samples(values, image.mode, 8, has_alpha, orientation)


def _deep_gray(image: Image.Image, orientation: int) -> Samples:
    """Gray of 9 to 32 bits or floats; white is the highest value."""
    values = np.asarray(image)
    bits, is_signed, is_inverted = pillow.depth(image)
    if values.dtype.kind != "f":
        if bits <= 16 and not is_signed:
            if values.min() < 0 or values.max() >> bits:
                raise ImageError(
                    f"values from {values.min()} to {values.max()} in {bits} bits; save the photo "
                    "again"
                )
            values = values.astype(np.uint16)
            values = (1 << bits) - 1 - values if is_inverted else values
        elif is_inverted:
            raise ImageError(f"inverted gray of {bits} bits; convert it")
        else:
            values = values.astype(np.int16) if bits <= 16 else _of_32_bits(values, is_signed)
    return Samples(values[:, :, None], f"{bits}-bit gray", bits, False, orientation)


def _of_32_bits(values: npt.NDArray[Any], is_signed: bool) -> npt.NDArray[Any]:
    """Pillow stores unsigned integers of 32 bits as signed ones."""
    return values if is_signed else np.ascontiguousarray(values, np.int32).view(np.uint32)


def _fitted(samples: Samples, form: PixelFormat) -> Pixels:
    """The bands that the model takes, upright."""
    values, channels = samples.values, form.channels
    bands = values.shape[2]
    if bands == channels + 1 and samples.has_alpha:
        values = values[:, :, :channels]
    elif bands == 1 and channels == 3:
        values = np.repeat(values, 3, axis=2)
    elif bands == 2 and channels == 3 and samples.has_alpha:
        values = np.repeat(values[:, :, :1], 3, axis=2)
    elif bands != channels:
        raise other_channels(channels, bands, samples.kind)
    if samples.bits not in (8, 16, 32, 64) and samples.bits > 1 and form.value_range is None:
        raise ImageError(
            f"samples of {samples.bits} bits; give --value-range LOW:HIGH (value_range), such as "
            f"0:{(1 << samples.bits) - 1}"
        )
    return np.ascontiguousarray(_turned(values, samples.orientation))


def _turned(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Apply an EXIF orientation to [h, w, C]."""
    if orientation in _SIDEWAYS:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _from_array(array: npt.NDArray[Any], form: PixelFormat) -> Pixels:
    channels = form.channels
    pixels = array[:, :, None] if array.ndim == 2 and channels in (1, 3) else array
    if pixels.ndim != 3 or pixels.shape[2] not in {channels, 1 if channels == 3 else channels}:
        raise ImageError(
            f"expected an array [h, w, {channels}] of the model's {channels} bands, got "
            f"{array.dtype} {list(array.shape)}"
        )
    # Before a copy: a broadcast array may be larger than the memory.
    check_size(pixels.shape[1], pixels.shape[0])
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] < channels else np.asarray(pixels)
