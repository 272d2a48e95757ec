"""Decodes files, Pillow images and arrays under one contract, and finds photo files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from model.arrays import UInt8
from model.errors import ImageError, UsageError
from runtime.sources.decoded import Decoded, UprightSize, check_size, whole
from runtime.sources.pixel_format import PixelFormat, Pixels

if TYPE_CHECKING:
    from PIL import Image

    from runtime.sources.scaled_jpeg import TargetHw

# Pillow takes a fifth of the runtime's import time: the first photo imports it.
Photo = Union[str, os.PathLike[str], "Image.Image", npt.NDArray[Any]]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})


def is_in_memory(photo: object) -> bool:
    """Whether a photo is an array or a Pillow image, which other code may change."""
    if isinstance(photo, np.ndarray):
        return True
    from PIL import Image

    return isinstance(photo, Image.Image)


def decode(photo: Photo) -> UInt8:
    """Decode a photo to uint8 [h, w, 3] RGB.

    Files and Pillow images are rotated by their EXIF orientation (unreadable EXIF is ignored);
    transparency is dropped; an animation gives its first frame; color profiles are not applied.
    Channels of 16 bits give the high byte, 12-bit grays the high 8 bits; Pillow scales and rounds
    the colors of a PPM with another maximum than 255. Arrays are used unchanged: uint8 [h, w, 3]
    RGB, or [h, w] gray.

    Damage that a decoder does not report, such as flipped bits inside a JPEG, stays undetected.
    If the program set `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`, truncation only gives a warning.

    Raises:
        ImageError: not an image, damaged or truncated, empty, not a regular file, more than 16 bits
            per channel, or larger than `decoded.MAX_PIXELS` or the memory.
    """
    return _decode(photo, None).pixels


def decode_as(photo: Photo, form: PixelFormat) -> Pixels:
    """Decode a photo to what a model takes: `decode` for 8-bit RGB, else `bands.decode`.

    Raises:
        ImageError: as these.
        MissingDependencyError: a TIFF file of several bands, without tifffile.
    """
    if form.is_rgb:
        return decode(photo)
    from runtime.sources import bands

    return bands.decode(photo, form)


def decode_at_least(photo: Photo, target_hw: TargetHw) -> Decoded:
    """As `decode`, but decode a JPEG file at 1/2, 1/4 or 1/8 of its size if that is enough.

    The smallest scale is used whose sides are not below the target. At full size, and for all other
    photos, the pixels are those of `decode`. At a fraction they are close to averages of the full
    pixels, and the model's resize of them differs: on the sample photo at half its size by 0.7 of
    255 levels on average and 32 at most (tested), and by several times that on fine texture, where
    a resize without antialiasing reads single pixels.

    Args:
        photo: as for `decode`.
        target_hw: maps a photo's upright height and width to the target, as a model's resize does.

    Raises:
        ImageError: as `decode`, or raised by `target_hw`.
    """
    return _decode(photo, target_hw)


def upright_size(path: Path) -> UprightSize:
    """The size of the pixels that `decode` returns; reads a file's header only, if that is enough.

    Raises:
        ImageError: as `decode`, but damage after the header stays undetected.
    """
    from runtime.sources import pillow

    return pillow.upright_size(path)


def find_photos(inputs: Sequence[str]) -> list[Path]:
    """Expand files, folders (sorted, not recursive) and glob patterns.

    Raises:
        UsageError: an input without a photo.
    """
    photos: list[Path] = []
    for text in inputs:
        files = files_at(text)
        if not files:
            raise UsageError(f"{text}: no photos found; expected an image file, a folder or a glob")
        photos.extend(files)
    return photos


def files_at(text: str) -> list[Path]:
    """The photos of a folder, a file, or the files that match a pattern; may be empty.

    Raises:
        UsageError: a folder that cannot be listed.
    """
    if os.path.isdir(text):
        return _photos_in(Path(text))
    # Includes broken links and special files: decoding reports them.
    if os.path.lexists(text):
        return [Path(text)]
    return _glob(text)


def _photos_in(folder: Path) -> list[Path]:
    try:
        inside = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be listed ({error.strerror}); check its permissions"
        ) from error
    return [p for p in inside if not os.path.isdir(p)]


def _glob(pattern: str) -> list[Path]:
    import glob

    if "\0" in pattern:  # glob fails on it, and no file name has it
        return []
    return sorted(Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))


def _decode(photo: Photo, target_hw: TargetHw | None) -> Decoded:
    if isinstance(photo, np.ndarray):
        return whole(_from_array(photo))
    from PIL import Image

    from runtime.sources import pillow

    if isinstance(photo, Image.Image):
        return whole(pillow.to_rgb(photo))
    if not isinstance(photo, str | os.PathLike):
        raise ImageError(
            f"expected a path, a Pillow image or a uint8 array, got {type(photo).__name__}"
            f"{_hint_for(photo)}"
        )
    return pillow.from_file(Path(photo), target_hw)


def _hint_for(photo: object) -> str:
    is_encoded = isinstance(photo, bytes | bytearray | memoryview)
    return "; pass an encoded photo as PIL.Image.open(io.BytesIO(…))" if is_encoded else ""


def _from_array(array: npt.NDArray[Any]) -> UInt8:
    is_gray = array.ndim == 2
    if array.dtype != np.uint8 or not (is_gray or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageError(
            f"expected an array as uint8 [h, w, 3] RGB, got {array.dtype} {list(array.shape)}"
        )
    # Before the copy: a broadcast array may be larger than the memory.
    check_size(array.shape[1], array.shape[0])
    plain: UInt8 = np.asarray(array)
    return np.repeat(plain[:, :, None], 3, axis=2) if is_gray else plain
