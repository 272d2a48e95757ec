"""Decodes photos with Pillow, under the contract of `runtime.sources.photos`.

Importing Pillow is slow, so only the first photo imports this module.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from model.arrays import UInt8
from model.errors import ImageError, MaskportError, image_named, in_brief
from runtime.sources import tiff
from runtime.sources.decoded import MAX_PIXELS, Decoded, UprightSize, check_size, whole
from runtime.sources.foreign_format import foreign_format
from runtime.sources.regular_file import open_regular
from runtime.sources.scaled_jpeg import TargetHw, shrink

# Cameras' MPO files open as JPEG.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that may have the orientation, with the start of their content.
_PNG_ORIENTATIONS = (
    b"eXIf",
    b"iTXtXML:com.adobe.xmp",
    b"tEXtRaw profile type exif",
    b"zTXtRaw profile type exif",
)
# Tags of TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
# Pillow logs what it also raises; without a handler Python prints it beside the error.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_SAMPLE_FORMAT, _SIGNED = 339, 2


def prepare() -> None:
    """Load the decoders of the common formats before the first photo."""
    Image.preinit()


def from_file(path: Path, target_hw: TargetHw | None) -> Decoded:
    """Decode a file; see `photos.decode` and, with a target size, `photos.decode_at_least`."""
    with image_named(str(path)), open_regular(path) as file:
        image = opened(file)
        with image:
            if target_hw is None or image.format not in ("JPEG", "MPO"):
                return whole(to_rgb(image))
            check_size(image.width, image.height)
            full_hw = _upright_hw(image)
            shrink(image, full_hw, target_hw)
            return Decoded(to_rgb(image), full_hw)


def opened(file: BinaryIO) -> Image.Image:
    """Open a file of a format of `photos.decode`; reads its header only.

    Raises:
        ImageError: damaged, or not such a file.
    """
    with pillow_errors(file):
        return Image.open(file, formats=_FORMATS)


def upright_size(path: Path) -> UprightSize:
    """The size that `from_file` decodes to; reads no pixels if the header is enough.

    Raises:
        ImageError: as `from_file`, but damage after the header stays undetected.
    """
    with image_named(str(path)), open_regular(path) as file:
        with pillow_errors():
            has_late_metadata = _has_late_metadata(file)
        try:
            image = opened(file)
        except ImageError:
            if not tiff.is_tiff(file):
                raise
            return _tiff_size(file)
        with image:
            check_size(image.width, image.height)
            tags = getattr(image, "tag_v2", {})
            # Pillow rotates TIFF files while it loads them.
            if has_late_metadata or tags.get(ExifTags.Base.Orientation, 1) != 1:
                height, width, _ = to_rgb(image).shape
                return UprightSize((height, width), is_turned=True)
            return UprightSize(_upright_hw(image), orientation(image) in _TRANSPOSES)


def _tiff_size(file: BinaryIO) -> UprightSize:
    """Of a file whose samples Pillow has no mode for."""
    with pillow_errors():
        (height, width), turn = tiff.size_hw(file)
    hw = (width, height) if turn in _SIDEWAYS else (height, width)
    return UprightSize(hw, turn in _TRANSPOSES)


def _has_late_metadata(file: BinaryIO) -> bool:
    """Whether a PNG file has its orientation after the pixels, where Pillow reads it too."""
    is_late = has_pixels = False
    if file.read(len(_PNG_SIGNATURE)) == _PNG_SIGNATURE:
        while not is_late and len(head := file.read(8)) == 8:
            end = file.tell() + int.from_bytes(head[:4], "big") + 4
            has_pixels |= head[4:] == b"IDAT"
            is_late = has_pixels and (head[4:] + file.read(21)).startswith(_PNG_ORIENTATIONS)
            file.seek(end)
    file.seek(0)
    return is_late


def _upright_hw(image: Image.Image) -> tuple[int, int]:
    is_sideways = orientation(image) in _SIDEWAYS
    return (image.width, image.height) if is_sideways else (image.height, image.width)


def to_rgb(image: Image.Image) -> UInt8:
    """Decode an opened image; see `photos.decode`."""
    check_size(image.width, image.height)
    _warn_of_lenient_pillow(image)
    with pillow_errors():
        # Before the orientation: Pillow rotates TIFF files while it loads them.
        image.load()
        transpose = _TRANSPOSES.get(orientation(image))
        upright = image if transpose is None else image.transpose(transpose)
        if not is_deep(upright):
            return rgb(upright)
        return high_byte(image, np.asarray(upright))


def _warn_of_lenient_pillow(image: Image.Image) -> None:
    """Warn if Pillow would accept a truncated photo.

    Training code sets this flag for its whole process. Other threads may depend on it, so it stays
    set; and Pillow does not report the damage that it accepted.
    """
    # Tiles are the parts that are not decoded yet.
    if ImageFile.LOAD_TRUNCATED_IMAGES and getattr(image, "tile", None):
        warnings.warn(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: the missing part of a truncated "
            "photo becomes gray; set it to False to refuse such photos",
            stacklevel=2,
        )


def rgb(image: Image.Image) -> UInt8:
    """A loaded image of 8 bits as RGB; transparency is dropped."""
    if image.mode == "RGB":
        return np.asarray(image)
    if image.mode == "P" and not (image.palette and image.palette.palette):
        # Pillow would return black.
        raise ImageError("a palette image without its palette; save it again")
    if "transparency" in image.info:
        # Without it the conversion of a palette image does not warn. The caller's image stays.
        image = image.copy()
        del image.info["transparency"]
    if image.mode == "La":  # premultiplied gray of some TIFFs, which Pillow converts to LA only
        image = image.convert("LA")
    return np.asarray(image.convert("RGB"))


def orientation(image: Image.Image) -> Any:
    """The EXIF orientation, 1 to 8; None for damaged EXIF, whose file may have intact pixels."""
    try:
        # Pillow's own method for PNG files decodes the pixels first.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:
        return None


@contextmanager
def pillow_errors(file: BinaryIO | None = None) -> Iterator[None]:
    """Convert any error of Pillow to an `ImageError`; `file` has what it cannot identify.

    Its plugins raise many types, from `struct.error` to `EOFError`, and their warnings too under
    `python -W error`; no list of these is complete.
    """
    try:
        yield
    except MaskportError:
        raise
    except UnidentifiedImageError as error:
        what = None if file is None else foreign_format(file)
        what = "unknown image format" if what is None else f"{what} cannot be read"
        raise ImageError(f"{what}; expected one of {', '.join(_FORMATS)}") from error
    except Image.DecompressionBombError as error:
        # The program may have set Pillow's own limit below ours.
        limit = min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
        raise ImageError(f"more than {limit} pixels; scale it down") from error
    except MemoryError as error:
        raise ImageError("larger than the memory; scale it down") from error
    except Exception as error:
        reason = in_brief(error)
        raise ImageError(
            f"damaged or truncated image ({reason}); save or download it again"
        ) from error


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow stores the image as integers of more than 8 bits, or as floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def high_byte(image: Image.Image, gray: npt.NDArray[Any]) -> UInt8:
    """The high 8 of 12 or 16 bits, as RGB.

    Pillow's own conversion saturates at 255. Pillow also leaves TIFF's 12-bit values unscaled, and
    does not invert values with white as 0. Integers of other images than TIFFs count as 16 bits.

    Args:
        image: source of the values, for its TIFF tags.
        gray: its values, [h, w].

    Returns:
        uint8 [h, w, 3].

    Raises:
        ImageError: floats, 32 bits, or values that exceed 16 bits.
    """
    bits, _, is_inverted = depth(image)
    if gray.dtype.kind == "f" or bits > 16 or gray.min() < 0 or gray.max() >> bits:
        raise ImageError(
            f"{gray.dtype} pixels from {gray.min():g} to {gray.max():g}; expected 8 or "
            "16 bits per channel; convert it"
        )
    high = (gray.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    if is_inverted:
        high = ~high
    return np.repeat(high[:, :, None], 3, axis=2)


def depth(image: Image.Image) -> tuple[int, bool, bool]:
    """Bits of a deep gray image's samples, and whether they have a sign, and white as 0."""
    tags = getattr(image, "tag_v2", {})
    bits = _first(tags.get(_BITS_PER_SAMPLE), 16)
    is_signed = _first(tags.get(_SAMPLE_FORMAT), 1) == _SIGNED
    return bits, is_signed, _first(tags.get(_PHOTOMETRIC), None) == _WHITE_IS_ZERO


def _first(value: Any, default: Any) -> Any:
    """A tag's only or first value; Pillow returns some tags as a tuple of one."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    return default if value is None else value
