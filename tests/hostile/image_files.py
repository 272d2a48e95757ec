"""Image files written byte by byte, so that Pillow does not test itself."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
# Adam7: first column, first row, step in x, step in y of each pass.
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip
SHORT, LONG = 3, 4


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int, color: int, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))


def _packed(values: NDArray[Any], depth: int) -> bytes:
    """Rows of samples [h, w·c], each padded to whole bytes, with filter 0 before it."""
    rows = []
    for row in values:
        if depth == 16:
            rows.append(b"\0" + row.astype(">u2").tobytes())
        elif depth == 8:
            rows.append(b"\0" + row.astype(np.uint8).tobytes())
        else:
            bits = "".join(f"{int(v):0{depth}b}" for v in row)
            bits += "0" * (-len(bits) % 8)
            rows.append(b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big"))
    return b"".join(rows)


def png(
    values: NDArray[Any],
    depth: int,
    color: int,
    before: Iterable[bytes] = (),
    after: Iterable[bytes] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG of samples [h, w] or [h, w, c], with further chunks around its data."""
    height, width = values.shape[:2]
    passes = [values]
    if interlaced:
        passes = [values[y::dy, x::dx] for x, y, dx, dy in _ADAM7]
    flat = (p.reshape(p.shape[0], -1) for p in passes if p.size)
    data = zlib.compress(b"".join(_packed(p, depth) for p in flat))
    parts = [SIGNATURE, header(width, height, depth, color, interlaced), *before]
    return b"".join([*parts, chunk(b"IDAT", data), *after, chunk(b"IEND", b"")])


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF structure with one tag, the orientation; without the "Exif" before it."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", 0x0112, SHORT, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 1) + entry + struct.pack(f"{order}I", 0)


def with_segment(jpeg: bytes, marker: int, data: bytes) -> bytes:
    """A JPEG with one more segment, right behind its start."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + jpeg[2:]


def with_exif(jpeg: bytes, data: bytes) -> bytes:
    return with_segment(jpeg, 0xE1, b"Exif\0\0" + data)


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG with another size in its frame header."""
    at = next(i for i in range(2, len(jpeg)) if jpeg[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def tiff(
    data: bytes,
    width: int,
    height: int,
    bits: Sequence[int],
    photometric: int,
    order: str = "<",
    more: Sequence[tuple[int, int, Sequence[int]]] = (),
    offset: int | None = None,
) -> bytes:
    """A TIFF of one uncompressed strip.

    `more` are tags (number, type, values) besides or instead of the usual, `offset` is that of the
    strip.
    """
    data += b"\0" * (len(data) % 2)
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, bits),
        259: (SHORT, [1]),
        262: (SHORT, [photometric]),
        273: (LONG, [8 if offset is None else offset]),
        277: (SHORT, [len(bits)]),
        278: (LONG, [height]),
        279: (LONG, [len(data)]),
    }
    tags |= {number: (dtype, values) for number, dtype, values in more}
    directory = 8 + len(data)
    extra_at = directory + 2 + 12 * len(tags) + 4
    entries, extra = [], b""
    for number, (dtype, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'H' if dtype == SHORT else 'I'}", *values)
        if len(packed) > 4:
            value = struct.pack(f"{order}I", extra_at + len(extra))
            extra += packed
        else:
            value = packed.ljust(4, b"\0")
        entries.append(struct.pack(f"{order}HHI", number, dtype, len(values)) + value)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    start = mark + struct.pack(f"{order}I", directory) + data
    body = struct.pack(f"{order}H", len(entries)) + b"".join(entries)
    return start + body + struct.pack(f"{order}I", 0) + extra


def bmp(
    rows: bytes,
    width: int,
    height: int,
    bits: int,
    palette: Sequence[tuple[int, int, int]] = (),
    compression: int = 0,
) -> bytes:
    """A BMP; `rows` as stored: bottom up for a positive height, each filled to 4 bytes."""
    colors = b"".join(struct.pack("BBBB", b, g, r, 0) for r, g, b in palette)
    start = 14 + 40 + len(colors)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, len(palette), 0
    )
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + info + colors + rows


def gif(
    indices: NDArray[np.uint8],
    palette: Sequence[tuple[int, int, int]],
    screen: tuple[int, int] | None = None,
    at: tuple[int, int] = (0, 0),
    data_of: tuple[int, int] | None = None,
) -> bytes:
    """A GIF of at most 4 colors whose LZW is never compressed: a clear code before each pixel.

    `screen` is the width and height of the whole, `at` the frame's offset on it; `data_of` replaces
    the frame's width and height.
    """
    height, width = indices.shape
    screen_w, screen_h = screen or (width, height)
    frame_w, frame_h = data_of or (width, height)
    table = b"".join(bytes(c) for c in palette).ljust(12, b"\0")
    # Codes of 3 bits: 0 to 3 are colors, 4 clears, 5 ends.
    codes = [code for index in indices.ravel() for code in (4, int(index))] + [5]
    value = sum(code << (3 * index) for index, code in enumerate(codes))
    packed = value.to_bytes((3 * len(codes) + 7) // 8, "little")
    blocks = b"".join(
        bytes([len(packed[i : i + 255])]) + packed[i : i + 255] for i in range(0, len(packed), 255)
    )
    head = b"GIF89a" + struct.pack("<HHBBB", screen_w, screen_h, 0b10000001, 0, 0) + table
    frame = b"," + struct.pack("<HHHHB", *at, frame_w, frame_h, 0) + b"\x02" + blocks + b"\0"
    return head + frame + b";"
