"""Photos from files, Pillow images and arrays, decoded under one contract."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from model.errors import ImageError, UsageError
from runtime.sources.depth import high_byte, is_deep
from runtime.sources.regular_file import open_regular
from runtime.sources.scaled_jpeg import WantedHw, shrink

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
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded photo.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, upright.
        full_hw: height and width of the whole photo, upright; `pixels` is smaller where it was
            decoded at a fraction of them.
    """

    pixels: UInt8
    full_hw: tuple[int, int]


def is_in_memory(photo: object) -> bool:
    """Whether a photo is an array or a Pillow image, which somebody else may hold, too."""
    return isinstance(photo, np.ndarray | Image.Image)


def decode(photo: Photo) -> UInt8:
    """Answer a photo as uint8 [h, w, 3] RGB.

    Files and Pillow images are turned upright by their EXIF orientation (unreadable EXIF counts
    as none); transparency is dropped; of an animation the first frame is taken; colour profiles
    are not applied. Of channels with 16 bits the high byte is taken, of 12-bit greys the high 8
    bits; Pillow scales the colours of a PPM with another maximum than 255 and rounds. Arrays are
    taken as they are: uint8 [h, w, 3] RGB, or [h, w] grey.

    Damage that a decoder does not notice, such as bits flipped inside a JPEG, cannot be told here;
    nor what a truncated file lacks, where the program has told Pillow to fill it with grey
    (`PIL.ImageFile.LOAD_TRUNCATED_IMAGES`), of which a warning tells.

    Raises:
        ImageError: not an image, damaged or truncated, empty, no regular file, of more than 16
            bits per channel, larger than `MAX_PIXELS` or than the memory.
    """
    return _decode(photo, None).pixels


def decode_at_least(photo: Photo, wanted_hw: WantedHw) -> Decoded:
    """As `decode`, but a JPEG file may come out at 1/2, 1/4 or 1/8 of its size, which is faster.

    The smallest of these is taken whose sides are not below the wanted ones. Where that is the
    full size, and for everything that is not a JPEG file, the pixels are those of `decode`. At a
    fraction they are close to averages over the full ones, not equal to them, and what a model's
    resize makes of them differs: on the sample photo at half its size by 0.7 of 255 levels on
    average and by 32 at most, which a test holds; by several times that on photos with fine
    texture, of which a resize without antialiasing reads single pixels.

    Args:
        photo: as for `decode`.
        wanted_hw: answers the height and width that are needed of a photo whose upright height
            and width it is given, as the resize of a model does.

    Raises:
        ImageError: as `decode`; those of `wanted_hw` with the photo's name before them.
    """
    return _decode(photo, wanted_hw)


def find_photos(places: Sequence[str]) -> list[Path]:
    """Expand files, folders (sorted, not recursive) and glob patterns.

    Raises:
        UsageError: a place that holds no photo.
    """
    found: list[Path] = []
    for place in places:
        inside = files_at(place)
        if not inside:
            raise UsageError(f"{place}: no photo there; expected an image file, a folder or a glob")
        found.extend(inside)
    return found


def files_at(place: str) -> list[Path]:
    """The photos of a folder, a file, or what a pattern matches; empty where nothing is there.

    Raises:
        UsageError: a folder that cannot be listed.
    """
    if os.path.isdir(place):
        return _photos_in(Path(place))
    # Also what is no regular file, and links to nowhere: that they cannot be read shall be said.
    if os.path.lexists(place):
        return [Path(place)]
    return _glob(place)


def _photos_in(folder: Path) -> list[Path]:
    try:
        inside = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror})") from error
    return [p for p in inside if not os.path.isdir(p)]


def _glob(pattern: str) -> list[Path]:
    import glob

    if "\0" in pattern:  # which no file's name has, and over which glob stumbles
        return []
    return sorted(Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))


def _decode(photo: Photo, wanted_hw: WantedHw | None) -> Decoded:
    if isinstance(photo, np.ndarray):
        return _whole(_from_array(photo))
    if isinstance(photo, Image.Image):
        return _whole(_from_pillow(photo, "image"))
    if not isinstance(photo, str | os.PathLike):
        raise ImageError(
            f"expected a path, a Pillow image or a uint8 array, got {type(photo).__name__}"
            f"{_hint_for(photo)}"
        )
    return _from_file(Path(photo), wanted_hw)


def _hint_for(given: object) -> str:
    is_encoded = isinstance(given, bytes | bytearray | memoryview)
    return "; give an encoded photo as PIL.Image.open(io.BytesIO(…))" if is_encoded else ""


def _whole(pixels: UInt8) -> Decoded:
    return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))


def _from_array(array: npt.NDArray[Any]) -> UInt8:
    is_grey = array.ndim == 2
    if array.dtype != np.uint8 or not (is_grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageError(
            f"array: expected uint8 [h, w, 3] RGB, got {array.dtype} {list(array.shape)}"
        )
    # Before anything is copied: with strides of 0 an array may claim more than memory holds.
    _check_size(array.shape[1], array.shape[0], "array")
    plain: UInt8 = np.asarray(array)
    return np.repeat(plain[:, :, None], 3, axis=2) if is_grey else plain


def _from_file(path: Path, wanted_hw: WantedHw | None) -> Decoded:
    where = str(path)
    with open_regular(path) as file:
        with _pillow_errors(where):
            image = Image.open(file, formats=_FORMATS)
        with image:
            if wanted_hw is None or image.format not in ("JPEG", "MPO"):
                return _whole(_from_pillow(image, where))
            _check_size(image.width, image.height, where)
            full_hw = _upright_hw(image)
            try:
                shrink(image, full_hw, wanted_hw)
            except ImageError as error:
                raise ImageError(f"{where}: {error}") from error
            return Decoded(_from_pillow(image, where), full_hw)


def _upright_hw(image: Image.Image) -> tuple[int, int]:
    is_sideways = _orientation(image) in _SIDEWAYS
    return (image.width, image.height) if is_sideways else (image.height, image.width)


def _from_pillow(image: Image.Image, where: str) -> UInt8:
    _check_size(image.width, image.height, where)
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
        raise ImageError(f"{where}: a palette image without its palette")
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
            f"{where}: not an image of a known kind ({', '.join(_FORMATS)})"
        ) from error
    except Image.DecompressionBombError as error:
        # Whoever embeds us may have set Pillow's own limit below ours.
        limit = min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
        raise ImageError(f"{where}: more than {limit} pixels; scale it down") from error
    except MemoryError as error:
        raise ImageError(f"{where}: larger than the memory; scale it down") from error
    except Exception as error:
        said = " ".join(str(error).split())
        raise ImageError(f"{where}: damaged or truncated image ({said})") from error


def _check_size(width: int, height: int, where: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{where}: the image is {width}x{height}; expected at least 1x1")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{where}: {width}x{height} is more than {MAX_PIXELS} pixels; scale it down"
        )
