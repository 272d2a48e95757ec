"""TIFF files of several bands, by tifffile."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from model.errors import ImageError, MissingDependencyError
from runtime.sources.decoded import check_size
from runtime.sources.pixel_format import other_channels

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF 6.0.
_WIDTH, _SAMPLES_PER_PIXEL, _BITS_PER_SAMPLE = 256, 277, 258
_WHITE_IS_ZERO, _PALETTE, _INKS = 0, 3, 5
_ALPHAS = (1, 2)
# Compressions whose decoders stop at a segment's size, which a file inside a file may not.
_COMPRESSIONS = {
    1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA",
    50000: "Zstandard",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Samples:
    """A photo's samples as stored, upright or with the orientation to apply.

    Attributes:
        values: [h, w, S].
        kind: of the file's colors, for messages.
        bits: per sample.
        has_alpha: whether the last band is transparency.
        orientation: of EXIF, 1 to 8.
    """

    values: npt.NDArray[Any]
    kind: str
    bits: int
    has_alpha: bool = False
    orientation: int = 1


def is_tiff(file: BinaryIO) -> bool:
    """Whether the file starts as a TIFF file."""
    file.seek(0)
    is_one = file.read(4) in _SIGNATURES
    file.seek(0)
    return is_one


def layout(file: BinaryIO) -> tuple[int, int] | None:
    """Bands, and bits of each, of the first page; None if they cannot be read."""
    from PIL import TiffImagePlugin

    try:
        file.seek(0)
        header = file.read(8)
        if header[2:3] == b"+" or header[3:4] == b"+":
            header += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        if _WIDTH not in tags:
            return None
        bits = tags.get(_BITS_PER_SAMPLE, (1,))
        return int(tags.get(_SAMPLES_PER_PIXEL, 1)), int(bits[0])
    except Exception:  # Pillow raises many types for damaged directories
        return None


def read(file: BinaryIO, channels: int) -> Samples:
    """Read the first page's bands; or the pages' one band each, if they are `channels`.

    Args:
        file: open at its start.
        channels: that the model takes; files with many more are not decoded.

    Raises:
        ImageError: damaged, too large, or of a layout or compression that is not read.
        MissingDependencyError: tifffile is not installed.
    """
    tifffile = require_tifffile()
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        first = tiff.pages[0]
        check_size(first.imagewidth, first.imagelength)
        pages = [first]
        if first.samplesperpixel == 1 and len(tiff.pages) == channels:
            pages = [tiff.pages[index] for index in range(channels)]
        elif first.samplesperpixel > channels + 1:
            raise other_channels(channels, first.samplesperpixel, "TIFF")
        return _joined(pages, os.fstat(file.fileno()).st_size)


def size_hw(file: BinaryIO) -> tuple[tuple[int, int], int]:
    """Height and width as stored, and the orientation.

    Raises:
        MissingDependencyError: tifffile is not installed.
    """
    tifffile = require_tifffile()
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        check_size(page.imagewidth, page.imagelength)
        return (page.imagelength, page.imagewidth), _orientation(page)


def require_tifffile() -> Any:
    """tifffile, imported.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise MissingDependencyError(
            "TIFF files of several bands need tifffile; pip install 'maskport[tiff]'"
        ) from error
    # It logs what it makes of odd tags; without a handler, Python prints that.
    logger = logging.getLogger("tifffile")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return tifffile


def _joined(pages: list[Any], file_size: int) -> Samples:
    first = pages[0]
    for page in pages:
        _check(page, file_size)
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise ImageError(
                f"pages of different sizes, {first.shape} and {page.shape}; expected one page, or "
                "a page of the same size per band"
            )
    bands = [_bands_last(page) for page in pages]
    values = bands[0] if len(bands) == 1 else np.concatenate(bands, axis=2)
    bits = int(np.max(first.bitspersample))
    if int(first.photometric) == _WHITE_IS_ZERO and values.dtype.kind == "u":
        extra = len(first.extrasamples) if len(pages) == 1 else 0
        colors = values.shape[2] - extra
        values[:, :, :colors] = (1 << bits) - 1 - values[:, :, :colors]
    has_alpha = bool(first.extrasamples) and int(first.extrasamples[-1]) in _ALPHAS
    return Samples(values, "TIFF", bits, has_alpha, _orientation(first))


def _check(page: Any, file_size: int) -> None:
    """Refuse what would be decoded to other values, or to more memory, than its size promises."""
    check_size(page.imagewidth, page.imagelength)
    if page.is_tiled:
        check_size(page.tilewidth, page.tilelength)
    if page.imagedepth > 1 or (page.is_tiled and page.tiledepth > 1):
        raise ImageError("a TIFF of volumes; expected a TIFF of flat pages")
    if int(page.photometric) in (_PALETTE, _INKS):
        kind = "a palette" if int(page.photometric) == _PALETTE else "inks (CMYK)"
        raise ImageError(f"a TIFF of {kind}; expected bands of light; convert it")
    if int(page.compression) not in _COMPRESSIONS:
        names = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(
            f"a TIFF of several bands compressed by {getattr(page.compression, 'name', '?')}; "
            f"expected one of {names}; convert it"
        )
    if page.dtype is None or page.dtype.kind not in "uif":
        raise ImageError(f"a TIFF of {page.dtype} samples; expected whole or real numbers")
    ends = (start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True))
    if not page.dataoffsets or max(ends) > file_size:
        raise ImageError("truncated image; save or download it again")


def _bands_last(page: Any) -> npt.NDArray[Any]:
    """The page's samples, [h, w, S]; tifffile's fourth axis of five is the width."""
    values = page.asarray(squeeze=False, maxworkers=1)  # [planes, 1, h, w, contiguous samples]
    planes, _, height, width, samples = values.shape
    if min(planes, samples) != 1 or (height, width) != (page.imagelength, page.imagewidth):
        raise ImageError(f"a TIFF of shape {page.shape}; expected one image of bands")
    upright = values[0, 0] if planes == 1 else values[:, 0, :, :, 0].transpose(1, 2, 0)
    return np.array(upright, dtype=page.dtype.newbyteorder("="))


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    value = 1 if tag is None else tag.value
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1
