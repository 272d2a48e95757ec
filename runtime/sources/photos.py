"""Photos from files, Pillow images and arrays, decoded under one contract."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import ImageError, UsageError

Photo = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]

MAX_PIXELS = 178_956_970
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "MPO")


def decode(photo: Photo) -> UInt8:
    """Answer a photo as uint8 [h, w, 3] RGB.

    Files are turned upright by their EXIF orientation; transparency is dropped; 16-bit greys
    are scaled, not clipped. Arrays are taken as they are: uint8 [h, w, 3] RGB, or [h, w] grey.

    Raises:
        ImageError: not an image, truncated, empty, or larger than `MAX_PIXELS`.
    """
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    if isinstance(photo, Image.Image):
        return _from_pillow(photo, "image")
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
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's plugins raise all three
        raise ImageError(f"{path}: damaged or truncated image ({error})") from error


def _from_pillow(image: Image.Image, where: str) -> UInt8:
    _check_size(image.width, image.height, where)
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        high_byte = (np.asarray(upright).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(high_byte[:, :, None], 3, axis=2)
    return np.asarray(upright.convert("RGB"))


def _check_size(width: int, height: int, where: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{where}: the image is {width}x{height}; expected at least 1x1")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{where}: {width}x{height} is more than {MAX_PIXELS} pixels; scale it down"
        )
