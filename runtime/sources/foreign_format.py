"""Names the format of a file that is no readable photo, for error messages."""

from __future__ import annotations

from typing import BinaryIO

from runtime.sources import tiff

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


def foreign_format(file: BinaryIO) -> str | None:
    """What a file is by its first bytes; None if they are unknown. Moves the file's position."""
    if tiff.is_tiff(file):
        layout = tiff.layout(file)
        if layout is None:
            return "a damaged TIFF"
        bands, bits = layout
        return f"a TIFF of {bands} band{'s' * (bands != 1)} of {bits} bits"
    file.seek(0)
    head = file.read(_HEAD)
    for offset, signature, name in _SIGNATURES:
        # One byte proves nothing: MPEG-TS repeats it at the start.
        if head[offset:].startswith(signature) and (offset != 188 or head[:1] == signature):
            return name
    return None
