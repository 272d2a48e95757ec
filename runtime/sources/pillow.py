"""Photos that Pillow opens, under the contract of `runtime.sources.photos`.

A module of its own, because importing Pillow takes long: nothing imports this before a photo.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from model.arrays import UInt8
from model.errors import ImageError
from runtime.sources.decoded import MAX_PIXELS, Decoded, check_size
from runtime.sources.depth import high_byte, is_deep
from runtime.sources.regular_file import open_regular
from runtime.sources.scaled_jpeg import WantedHw, shrink

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
_SIDEWAYS = (5, 6, 7, 8)


def prepare() -> None:
    """Load the decoders of the usual formats, which the first photo would wait for."""
    Image.preinit()


def from_file(path: Path, wanted_hw: WantedHw | None) -> Decoded:
    """Decode a file; see `photos.decode` and, with a wanted size, `photos.decode_at_least`."""
    where = str(path)
    with open_regular(path) as file:
        with _pillow_errors(where):
            image = Image.open(file, formats=_FORMATS)
        with image:
            if wanted_hw is None or image.format not in ("JPEG", "MPO"):
                pixels = to_rgb(image, where)
                return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))
            check_size(image.width, image.height, where)
            full_hw = _upright_hw(image)
            try:
                shrink(image, full_hw, wanted_hw)
            except ImageError as error:
                error.where = where
                raise
            return Decoded(to_rgb(image, where), full_hw)


def _upright_hw(image: Image.Image) -> tuple[int, int]:
    is_sideways = _orientation(image) in _SIDEWAYS
    return (image.width, image.height) if is_sideways else (image.height, image.width)


def to_rgb(image: Image.Image, where: str) -> UInt8:
    """Decode an opened image, named `where` in messages; see `photos.decode`."""
    check_size(image.width, image.height, where)
    _tell_of_lenient_pillow(image)
    with _pillow_errors(where):
        # Before EXIF is asked: TIFF files are turned while they are read, and say so then.
        image.load()
        turn = _TURNS.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)
        if not is_deep(upright):
            return _rgb(upright, where)
        return high_byte(image, np.asarray(upright), where)


def _tell_of_lenient_pillow(image: Image.Image) -> None:
    """Warn where a photo that ends too early would pass for a whole one.

    Training code sets this flag for all of its process. It is not ours to put back, since other
    threads may count on it; and which damage Pillow has passed over it does not say.
    """
    # Tiles are what is still to be decoded.
    if ImageFile.LOAD_TRUNCATED_IMAGES and getattr(image, "tile", None):
        warnings.warn(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: truncated photos pass for whole ones with "
            "grey in them; set it to False to have them refused",
            stacklevel=2,
        )


def _rgb(image: Image.Image, where: str) -> UInt8:
    if image.mode == "RGB":
        return np.asarray(image)
    if image.mode == "P" and not (image.palette and image.palette.palette):
        # Pillow shows it as black.
        raise ImageError("a palette image without its palette; save it again", where)
    if "transparency" in image.info:
        # Dropped either way; with it Pillow warns of palettes, in a copy the caller's stays.
        image = image.copy()
        del image.info["transparency"]
    if image.mode == "La":  # grey times alpha, of some TIFFs; Pillow undoes that to LA only
        image = image.convert("LA")
    return np.asarray(image.convert("RGB"))


def _orientation(image: Image.Image) -> Any:
    """EXIF's orientation, 1 to 8; the pixels of a file with damaged EXIF may well be sound."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


@contextmanager
def _pillow_errors(where: str) -> Iterator[None]:
    """Whatever Pillow raises over an image becomes one line that begins with its name.

    Its plugins raise what their code runs into, from `struct.error` to `EOFError`, and what they
    warn of under `python -W error`; no list of these would stay complete.
    """
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"unknown image format; expected one of {', '.join(_FORMATS)}", where
        ) from error
    except Image.DecompressionBombError as error:
        # Whoever embeds us may have set Pillow's own limit below ours.
        limit = min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
        raise ImageError(f"more than {limit} pixels; scale it down", where) from error
    except MemoryError as error:
        raise ImageError("larger than the memory; scale it down", where) from error
    except Exception as error:
        said = " ".join(str(error).split())
        raise ImageError(
            f"damaged or truncated image ({said}); save or download it again", where
        ) from error
