"""Photos from files, Pillow images and arrays, decoded under one contract."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from model.errors import ImageError, UsageError

Photo = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]

MAX_PIXELS = 178_956_970
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})
# Cameras' MPO files open as JPEG; Pillow knows no opener of that name.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's plugins raise on damaged files; TypeError and struct.error come from EXIF.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error)


def decode(photo: Photo) -> UInt8:
    """Answer a photo as uint8 [h, w, 3] RGB.

    Files and Pillow images are turned upright by their EXIF orientation (unreadable EXIF counts
    as none); transparency is dropped; of 16-bit greys the high byte is taken. Arrays are taken as
    they are: uint8 [h, w, 3] RGB, or [h, w] grey.

    Raises:
        ImageError: not an image, truncated, empty, of more than 16 bits, or larger than
            `MAX_PIXELS`.
    """
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    if isinstance(photo, Image.Image):
        return _from_pillow(photo, "image")
    if not isinstance(photo, str | os.PathLike):
        raise ImageError(
            f"expected a path, a Pillow image or a uint8 array, got {type(photo).__name__}"
        )
    return _from_file(Path(photo))


def find_photos(places: Sequence[str]) -> list[Path]:
    """Expand files, folders (sorted, not recursive) and glob patterns.

    Raises:
        UsageError: a place that holds no photo.
    """
    found: list[Path] = []
    for place in places:
        path = Path(place)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif path.exists():
            inside = [path]
        else:
            inside = _glob(place)
        if not inside:
            raise UsageError(f"{place}: no photo there; expected an image file, a folder or a glob")
        found.extend(inside)
    return found


def _glob(pattern: str) -> list[Path]:
    import glob

    return sorted(Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file())


def _from_array(array: npt.NDArray[Any]) -> UInt8:
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(
            f"array: expected uint8 [h, w, 3] RGB, got {array.dtype} {list(array.shape)}"
        )
    _check_size(array.shape[1], array.shape[0], "array")
    return array


def _from_file(path: Path) -> UInt8:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return _from_pillow(image, str(path))
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image of a known kind ({', '.join(_FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: more than {MAX_PIXELS} pixels; scale it down") from error
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: a folder; expected an image file") from error
    except PermissionError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    except _DAMAGE as error:
        raise _damaged(str(path), error) from error


def _from_pillow(image: Image.Image, where: str) -> UInt8:
    _check_size(image.width, image.height, where)
    try:
        # Before EXIF is asked: TIFF files are turned while they are read, and say so then.
        image.load()
        turn = _TURNS.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)
        if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
            return _high_byte(np.asarray(upright), where)
        return np.asarray(upright.convert("RGB"))
    except _DAMAGE as error:
        raise _damaged(where, error) from error


def _orientation(image: Image.Image) -> Any:
    """EXIF's orientation, 1 to 8; the pixels of a file with damaged EXIF may well be sound."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return None


def _high_byte(grey: npt.NDArray[Any], where: str) -> UInt8:
    """16-bit grey [h, w] as RGB."""
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > np.iinfo(np.uint16).max:
        raise ImageError(
            f"{where}: {grey.dtype} pixels from {grey.min():g} to {grey.max():g}; expected 8 or "
            "16 bits per channel; convert it"
        )
    high = (grey.astype(np.uint16) >> 8).astype(np.uint8)
    return np.repeat(high[:, :, None], 3, axis=2)


def _damaged(where: str, error: Exception) -> ImageError:
    return ImageError(f"{where}: damaged or truncated image ({' '.join(str(error).split())})")


def _check_size(width: int, height: int, where: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{where}: the image is {width}x{height}; expected at least 1x1")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{where}: {width}x{height} is more than {MAX_PIXELS} pixels; scale it down"
        )
