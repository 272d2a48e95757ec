"""16-bit PNG files of two to four channels, of which Pillow itself keeps the high bytes only.

Pillow has no mode for them, but its decoder takes any layout of the file's bytes: one that reads
each sample's low byte, and one that reads two samples of 16 bits as four of 8.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.errors import ImageError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 4: 2, 6: 4}  # of a color type, PNG specification 11.2.1


def channels_of_deep(file: BinaryIO) -> int | None:
    """Channels of a 16-bit PNG file with several; None for any other file."""
    file.seek(0)
    start = file.read(26)
    if start[:8] != _SIGNATURE or start[12:16] != b"IHDR" or start[24:25] != b"\x10":
        return None
    return _CHANNELS.get(start[25])


def read(file: BinaryIO, channels: int) -> npt.NDArray[np.uint16]:
    """Decode the file, which Pillow has decoded without an error, to [h, w, channels]."""
    file.seek(16)
    width, height = (int.from_bytes(file.read(4), "big") for _ in range(2))
    file.seek(28)
    is_interlaced = file.read(1) != b"\0"
    data = b"".join(_parts(file))
    hw = (height, width)
    if channels == 2:
        pairs = _decoded("RGBA", "RGBA", hw, data, is_interlaced)
        return pairs.view(">u2").astype(np.uint16)
    mode = "RGB" if channels == 3 else "RGBA"
    high = _decoded(mode, f"{mode};16B", hw, data, is_interlaced)
    low = _decoded(mode, f"{mode};16L", hw, data, is_interlaced)
    return (high.astype(np.uint16) << 8 | low).astype(np.uint16, copy=False)


def _decoded(
    mode: str, layout: str, hw: tuple[int, int], data: bytes, is_interlaced: bool
) -> npt.NDArray[np.uint8]:
    image = Image.frombytes(mode, (hw[1], hw[0]), data, "zip", layout, is_interlaced)
    return np.ascontiguousarray(image)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    """The content of the file's IDAT chunks."""
    file.seek(len(_SIGNATURE))
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        size = int.from_bytes(head[:4], "big")
        if head[4:] != b"IDAT":
            file.seek(size + 4, 1)
            continue
        content = file.read(size)
        if zlib.crc32(head[4:] + content) != int.from_bytes(file.read(4), "big"):
            raise ImageError("damaged image (wrong checksum); save or download it again")
        yield content
