"""Names the format of a file that is no readable photo, for error messages."""

from __future__ import annotations

import struct
from typing import BinaryIO

_HEAD = 512
# Offset, bytes, name. A brand follows "ftyp": HEIF and AVIF are photos, the others videos.
_SIGNATURES = (
    (4, b"ftypheic", "a HEIF photo"),
    (4, b"ftypheix", "a HEIF photo"),
    (4, b"ftypmif1", "a HEIF photo"),
    (4, b"ftypavif", "an AVIF photo"),
    (4, b"ftyp", "a video (MP4, MOV)"),
    (4, b"moov", "a video (MOV)"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska, WebM)"),
    (8, b"AVI ", "a video (AVI)"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (WMV)"),
    (0, b"FLV\x01", "a video (FLV)"),
    (0, b"OggS", "a video (Ogg)"),
    (0, b"\x00\x00\x01\xba", "a video (MPEG)"),
    (0, b"\x00\x00\x01\xb3", "a video (MPEG)"),
    (188, b"\x47", "a video (MPEG-TS)"),
    (4, b"jP  ", "a JPEG 2000 photo"),
    (0, b"\xff\x0a", "a JPEG XL photo"),
    (4, b"JXL ", "a JPEG XL photo"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF file"),
    (128, b"DICM", "a DICOM file"),
)
_TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "", b"MM\0+": ""}
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277
_MOST_TAGS = 200


def foreign_format(file: BinaryIO) -> str | None:
    """What a file is by its first bytes; None if they are unknown. Moves the file's position."""
    try:
        file.seek(0)
        head = file.read(_HEAD)
        if head[:4] in _TIFF:
            order = _TIFF[head[:4]]
            return f"a TIFF of {_bands(file, order, head)}" if order else "a BigTIFF"
    except (OSError, struct.error):
        return "a damaged TIFF"
    for offset, signature, name in _SIGNATURES:
        # One byte proves nothing: MPEG-TS repeats it at the start.
        if head[offset:].startswith(signature) and (offset != 188 or head[:1] == signature):
            return name
    return None


def _bands(file: BinaryIO, order: str, head: bytes) -> str:
    """Number and depth of the bands in a TIFF's first directory."""
    file.seek(struct.unpack_from(f"{order}I", head, 4)[0])
    (count,) = struct.unpack(f"{order}H", file.read(2))
    tags: dict[int, tuple[int, bytes]] = {}
    for _ in range(min(count, _MOST_TAGS)):
        tag, length, value = struct.unpack(f"{order}H2xI4s", file.read(12))
        tags[tag] = length, value
    bands = _short(order, tags.get(_SAMPLES_PER_PIXEL, (1, b""))[1], 1)
    length, value = tags.get(_BITS_PER_SAMPLE, (1, b""))
    if length > 2:  # the tag then has the position of its values
        file.seek(struct.unpack(f"{order}I", value)[0])
        value = file.read(2)
    return f"{bands} band{'s' * (bands != 1)} of {_short(order, value, 1)} bits"


def _short(order: str, value: bytes, default: int) -> int:
    return int(struct.unpack_from(f"{order}H", value)[0]) if value else default
