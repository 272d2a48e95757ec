"""Photos from files, Pillow images and arrays, decoded under one contract."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from model.arrays import UInt8
from model.errors import ImageError, UsageError
from runtime.sources.decoded import Decoded, check_size

if TYPE_CHECKING:
    from PIL import Image

    from runtime.sources.scaled_jpeg import WantedHw

# Pillow takes a fifth of the runtime's own import: it is imported where a photo needs it.
Photo = Union[str, os.PathLike[str], "Image.Image", npt.NDArray[Any]]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})


def is_in_memory(photo: object) -> bool:
    """Whether a photo is an array or a Pillow image, which somebody else may hold, too."""
    if isinstance(photo, np.ndarray):
        return True
    from PIL import Image

    return isinstance(photo, Image.Image)


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
            bits per channel, larger than `decoded.MAX_PIXELS` or than the memory.
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
        ImageError: as `decode`; those of `wanted_hw`, with the photo's name.
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
        raise UsageError(
            f"{folder}: cannot be listed ({error.strerror}); check its permissions"
        ) from error
    return [p for p in inside if not os.path.isdir(p)]


def _glob(pattern: str) -> list[Path]:
    import glob

    if "\0" in pattern:  # which no file's name has, and over which glob stumbles
        return []
    return sorted(Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))


def _decode(photo: Photo, wanted_hw: WantedHw | None) -> Decoded:
    if isinstance(photo, np.ndarray):
        return _whole(_from_array(photo))
    from PIL import Image

    from runtime.sources import pillow

    if isinstance(photo, Image.Image):
        return _whole(pillow.to_rgb(photo, ""))
    if not isinstance(photo, str | os.PathLike):
        raise ImageError(
            f"expected a path, a Pillow image or a uint8 array, got {type(photo).__name__}"
            f"{_hint_for(photo)}"
        )
    return pillow.from_file(Path(photo), wanted_hw)


def _hint_for(given: object) -> str:
    is_encoded = isinstance(given, bytes | bytearray | memoryview)
    return "; give an encoded photo as PIL.Image.open(io.BytesIO(…))" if is_encoded else ""


def _whole(pixels: UInt8) -> Decoded:
    return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))


def _from_array(array: npt.NDArray[Any]) -> UInt8:
    is_grey = array.ndim == 2
    if array.dtype != np.uint8 or not (is_grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageError(
            f"expected an array as uint8 [h, w, 3] RGB, got {array.dtype} {list(array.shape)}"
        )
    # Before anything is copied: with strides of 0 an array may claim more than memory holds.
    check_size(array.shape[1], array.shape[0], "")
    plain: UInt8 = np.asarray(array)
    return np.repeat(plain[:, :, None], 3, axis=2) if is_grey else plain
