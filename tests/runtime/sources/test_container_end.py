"""The end of containers, in hand-written bytes."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from runtime.sources import container_end
from runtime.sources.container_end import missing_bytes
from tests.runtime.sources import clips

FTYP = struct.pack(">I4s8x", 16, b"ftyp")
EBML = b"\x1a\x45\xdf\xa3\x83abc\x18\x53\x80\x67"


def test_missing_bytes(subtests: pytest.Subtests) -> None:
    for case, data, missing in [
        ("empty", b"", 0),
        ("transport-stream", b"\x47" + bytes(187), 0),
        ("box", FTYP, 0),
        ("two-boxes", FTYP + struct.pack(">I4s", 8, b"moov"), 0),
        ("box-cut", FTYP + struct.pack(">I4s", 108, b"mdat") + bytes(60), 40),
        ("box-to-the-end", FTYP + struct.pack(">I4s", 0, b"mdat") + bytes(60), 0),
        ("long-box", FTYP + struct.pack(">I4sQ", 1, b"mdat", 116), 100),
        ("box-shorter-than-its-head", FTYP + struct.pack(">I4s", 3, b"mdat"), 0),
        ("two-odd-bytes", FTYP + b"\0\0", 0),
        ("words-behind", FTYP + b"made by a camera", 0),
        ("fragment-cut", FTYP + struct.pack(">I4s", 99, b"moof"), 91),
        ("first-box-cut", FTYP[:11], 5),
        ("segment", EBML + b"\x8a" + bytes(10), 0),
        ("segment-cut", EBML + b"\x8a" + bytes(4), 6),
        ("segment-long-size", EBML + b"\x40\x64" + bytes(4), 96),
        ("segment-open", EBML + b"\xff" + bytes(4), 0),
        ("segment-open-long", EBML + b"\x01" + b"\xff" * 7 + bytes(4), 0),
        ("segment-size-of-no-width", EBML + b"\x00", 0),
        ("segment-without-size", EBML, 0),
        ("header-only", EBML[:6], 0),
        ("riff", b"RIFF" + struct.pack("<I", 50) + b"AVI " + bytes(46), 0),
        ("riff-cut", b"RIFF" + struct.pack("<I", 50) + b"AVI " + bytes(16), 22),
        ("other-riff", b"RIFF" + struct.pack("<I", 50) + b"WAVE", 0),
    ]:
        with subtests.test(case):
            assert missing_bytes(io.BytesIO(data)) == missing


@pytest.mark.parametrize("suffix", clips.LOSSLESS | clips.LOSSY)
def test_whole_files_lack_no_bytes(tmp_path: Path, suffix: str) -> None:
    path = clips.write(tmp_path / f"clip.{suffix}", clips.pictures(3))
    with path.open("rb") as file:
        assert missing_bytes(file) == 0


def test_boxes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = FTYP * 2 + struct.pack(">I4s", 9, b"mdat")
    assert missing_bytes(io.BytesIO(cut)) == 1
    monkeypatch.setattr(container_end, "_MOST_BOXES", 2)
    assert missing_bytes(io.BytesIO(cut)) == 0
