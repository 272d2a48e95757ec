"""Detects truncated video files, which would otherwise pass as short ones."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MEDIA_BOXES = (b"ftyp", b"moov", b"moof", b"mdat")
_MOST_BOXES = 100_000


def missing_bytes(file: BinaryIO) -> int:
    """Number of bytes that a file lacks of the size in its container; 0 without such a size.

    MP4 and QuickTime (top-level boxes), Matroska and WebM (the segment) and AVI (the first RIFF
    chunk) have one; streams such as MPEG-TS do not. Moves the file's position.

    Source: ISO/IEC 14496-12, 4.2; RFC 8794, 4 and RFC 9559, 4; AVI RIFF File Reference.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == _EBML:
        end = _segment_end(file)
    elif head[:4] == b"RIFF" and head[8:] == b"AVI ":
        # The standard excludes these 8 bytes from the size; some writers include them.
        end = int.from_bytes(head[4:8], "little")
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        end = _boxes_end(file, size)
    else:
        end = 0
    return max(end - size, 0)


def _boxes_end(file: BinaryIO, size: int) -> int:
    """End of the last box: 4 bytes of length, 4 of type, and 8 of length if the first length is 1.

    Cameras append data that is not a box, so only media boxes count as truncated.
    """
    start = 0
    for _ in range(_MOST_BOXES):
        if start >= size:
            break
        file.seek(start)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0 extends to the end of the file
            return start
        if start + length > size and head[4:8] not in _MEDIA_BOXES:
            return start
        start += length
    return start


def _segment_end(file: BinaryIO) -> int:
    """End of the first segment, behind the header; 0 if its size is unknown."""
    file.seek(len(_EBML))
    header = _variable(file)
    if header is None:
        return 0
    file.seek(header, io.SEEK_CUR)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return 0
    length = _variable(file)
    return 0 if length is None else file.tell() + length


def _variable(file: BinaryIO) -> int | None:
    """A size with its byte count in the leading zero bits; None for all ones, which is unknown."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    bits = 7 * width
    value = int.from_bytes(first + file.read(width - 1), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
