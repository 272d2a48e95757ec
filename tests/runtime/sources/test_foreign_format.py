"""Errors about files that are no photos name what they are."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from model.errors import ImageError
from runtime.sources.photos import decode


def tiff(order: str, bands: int, bits: int) -> bytes:
    """One pixel, with as many bands as photos do not have."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tags = {256: 1, 257: 1, 259: 1, 262: 1, 277: bands, 278: 1}
    entries = [struct.pack(f"{order}HHIHxx", tag, 3, 1, value) for tag, value in tags.items()]
    end = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries.insert(2, struct.pack(f"{order}HHII", 258, 3, bands, end))
    entries.insert(5, struct.pack(f"{order}HHII", 273, 4, 1, end + 2 * bands))
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    depths = struct.pack(f"{order}{bands}H", *[bits] * bands)
    return mark + struct.pack(f"{order}I", 8) + directory + depths + bytes(bands * bits // 8)


FILES = {
    "4 bands": (tiff("<", 4, 16), "a TIFF of 4 bands of 16 bits"),
    "12 bands": (tiff("<", 12, 8), "a TIFF of 12 bands of 8 bits"),
    "the other byte order": (tiff(">", 6, 16), "a TIFF of 6 bands of 16 bits"),
    "directory beyond the end": (tiff("<", 4, 16)[:20], "a damaged TIFF"),
    "MP4": (b"\0\0\0\x18ftypmp42" + bytes(99), "a video (MP4, MOV)"),
    "Matroska": (b"\x1aE\xdf\xa3" + bytes(99), "a video (Matroska, WebM)"),
    "MPEG-TS": ((b"\x47" + bytes(187)) * 3, "a video (MPEG-TS)"),
    "HEIF": (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIF photo"),
    "text": (b"hello", "unknown image format"),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_files_that_are_no_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    path = tmp_path / "a.jpg"
    for case, (content, what) in FILES.items():
        with subtests.test(case):
            path.write_bytes(content)
            with pytest.raises(ImageError) as caught:
                decode(path)
            assert str(caught.value).startswith(f"{path}: {what}")
            assert capsys.readouterr() == ("", "")
