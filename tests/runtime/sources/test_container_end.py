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


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        pytest.param(b"", 0, id="empty"),
        pytest.param(b"\x47" + bytes(187), 0, id="transport-stream"),
        pytest.param(FTYP, 0, id="box"),
        pytest.param(FTYP + struct.pack(">I4s", 8, b"moov"), 0, id="two-boxes"),
        pytest.param(FTYP + struct.pack(">I4s", 108, b"mdat") + bytes(60), 40, id="box-cut"),
        pytest.param(FTYP + struct.pack(">I4s", 0, b"mdat") + bytes(60), 0, id="box-to-the-end"),
        pytest.param(FTYP + struct.pack(">I4sQ", 1, b"mdat", 116), 100, id="long-box"),
        pytest.param(FTYP + struct.pack(">I4s", 3, b"mdat"), 0, id="box-shorter-than-its-head"),
        pytest.param(FTYP + b"\0\0", 0, id="two-odd-bytes"),
        pytest.param(FTYP + b"made by a camera", 0, id="words-behind"),
        pytest.param(FTYP + struct.pack(">I4s", 99, b"moof"), 91, id="fragment-cut"),
        pytest.param(FTYP[:11], 5, id="first-box-cut"),
        pytest.param(EBML + b"\x8a" + bytes(10), 0, id="segment"),
        pytest.param(EBML + b"\x8a" + bytes(4), 6, id="segment-cut"),
        pytest.param(EBML + b"\x40\x64" + bytes(4), 96, id="segment-long-size"),
        pytest.param(EBML + b"\xff" + bytes(4), 0, id="segment-open"),
        pytest.param(EBML + b"\x01" + b"\xff" * 7 + bytes(4), 0, id="segment-open-long"),
        pytest.param(EBML + b"\x00", 0, id="segment-size-of-no-width"),
        pytest.param(EBML, 0, id="segment-without-size"),
        pytest.param(EBML[:6], 0, id="header-only"),
        pytest.param(b"RIFF" + struct.pack("<I", 50) + b"AVI " + bytes(46), 0, id="riff"),
        pytest.param(b"RIFF" + struct.pack("<I", 50) + b"AVI " + bytes(16), 22, id="riff-cut"),
        pytest.param(b"RIFF" + struct.pack("<I", 50) + b"WAVE", 0, id="other-riff"),
    ],
)
def test_missing_bytes(data: bytes, missing: int) -> None:
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
