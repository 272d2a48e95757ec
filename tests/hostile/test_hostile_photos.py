"""Every photo of the corpus has its outcome, however it is passed; sizes are limited."""

from __future__ import annotations

import io
import os
import socket
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from model.errors import ImageError
from runtime.sources import decoded
from runtime.sources.photos import decode, decode_at_least
from runtime.sources.regular_file import open_regular
from tests.hostile import image_files as files
from tests.hostile.photo_corpus import (
    COLORS,
    DAMAGED,
    UNKNOWN,
    Outcome,
    families,
    indices,
    jpeg,
    saved,
    scene,
)  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
]


def _outcome(photo: Path | str | Image.Image, where: str) -> Outcome:
    try:
        return decode(photo)
    except ImageError as error:
        line, prefix = str(error), f"{where}: " if where else ""
        assert line.startswith(prefix)
        assert line.isprintable()
        assert len(line) < 500 + len(where)
        return line.removeprefix(prefix)


def _check(outcome: Outcome, expected: Outcome) -> None:
    if isinstance(expected, str):
        assert isinstance(outcome, str), "decoded, but should be refused"
        assert outcome.startswith(expected) if expected == DAMAGED else outcome == expected
    else:
        assert isinstance(outcome, np.ndarray), outcome
        assert outcome.dtype == np.uint8
        np.testing.assert_array_equal(outcome, expected)


def _check_opened(data: bytes, expected: Outcome) -> None:
    """What Pillow opens at all is then decoded, or refused, as the file is."""
    try:
        image = Image.open(io.BytesIO(data))
    except Exception:
        assert isinstance(expected, str)
        return
    with image:
        if isinstance(expected, str) and expected == UNKNOWN:
            # Not a format that we open, but the user opened it.
            assert image.format in ("ICO", "EPS")
        else:
            _check(_outcome(image, ""), expected)


@pytest.mark.parametrize("family", families())
def test_outcomes(tmp_path: Path, family: str, subtests: pytest.Subtests) -> None:
    for name, (data, expected) in families()[family].items():
        with subtests.test(name):
            path = tmp_path / name
            path.write_bytes(data)
            _check(_outcome(path, str(path)), expected)
            _check(_outcome(str(path), str(path)), expected)
            if isinstance(expected, np.ndarray):
                whole = decode_at_least(path, lambda hw: hw)
                _check(whole.pixels, expected)
                assert whole.full_hw == expected.shape[:2]
            _check_opened(data, expected)


# The same 24 x 40 pixels in every format.
FORMATS = {
    "a.jpg": jpeg(scene()),
    "a.png": files.png(scene(), 8, files.RGB),
    "a.webp": saved(scene(), "WEBP"),
    "a.tif": files.tiff(scene().tobytes(), 40, 24, [8] * 3, 2),
    "a.bmp": files.bmp(scene().tobytes(), 40, 24, 24),
    "a.gif": files.gif(indices(), COLORS),
    "a.ppm": b"P6 40 24 255\n" + scene().tobytes(),
}


def test_pixels_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for name, data in FORMATS.items():
        with subtests.test(name):
            path = tmp_path / name
            path.write_bytes(data)
            monkeypatch.setattr(decoded, "MAX_PIXELS", 24 * 40)
            assert decode(path).shape == (24, 40, 3)
            monkeypatch.setattr(decoded, "MAX_PIXELS", 24 * 40 - 1)
            expected = "40x24 is more than 959 pixels; scale it down"
            assert _outcome(path, str(path)) == expected
            with Image.open(path) as image:
                assert _outcome(image, "") == expected


def test_the_limit_of_pillow_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """Also for a GIF's frame that is larger than its screen."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 479)
    frame = files.gif(indices()[:4, :4], COLORS, data_of=(40, 24))

    for name, data in {**FORMATS, "frame.gif": frame}.items():
        with subtests.test(name):
            path = tmp_path / name
            path.write_bytes(data)
            assert _outcome(path, str(path)) == "more than 958 pixels; scale it down"


def test_texts_in_a_png_are_limited_by_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = tmp_path / "a.png", zlib.compress(bytes(9))
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 8)
    for kind, head in ((b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0"), (b"iCCP", b"x\0\0")):
        path.write_bytes(files.png(scene(), 8, files.RGB, [files.chunk(kind, head + text)]))
        _check(_outcome(path, str(path)), DAMAGED)


def test_warnings_that_are_errors_stay_image_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -W error` must not turn an odd photo into a traceback."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 480)  # Pillow warns up to twice as many
    path = tmp_path / "a.png"
    path.write_bytes(FORMATS["a.png"])
    assert isinstance(decode(path), np.ndarray)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(_outcome(path, str(path)), str)
        monkeypatch.undo()
        for family, name in (("odd EXIF", "exif-garbage.jpg"), ("PNG", "palette-transparent.png")):
            data, expected = families()[family][name]
            path.write_bytes(data)
            _check(_outcome(path, str(path)), expected)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    rows = {
        "": "a folder; expected an image file",
        "b.jpg": "no such file",
        "loop.jpg": "cannot be read (",
        "a" * 3000: "cannot be read (File name too long)",
    }
    for name, start in rows.items():
        path = tmp_path / name
        assert str(_outcome(path, str(path))).startswith(start)
    with pytest.raises(ImageError, match="no file can have this name"):
        decode(tmp_path / "a\0b.jpg")


def test_a_device_is_refused_and_opening_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    flags_of_calls = []
    real = os.open

    def noted(path: str, flags: int) -> int:
        flags_of_calls.append(flags)
        return real(path, flags)

    monkeypatch.setattr(os, "open", noted)
    with pytest.raises(ImageError, match="a pipe or a device; expected an image file"):
        open_regular(Path("/dev/null"))
    assert all(flags & os.O_NONBLOCK for flags in flags_of_calls)
    assert flags_of_calls


def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may be 100 bytes long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.jpg")
        assert str(_outcome("a.jpg", "a.jpg")).startswith("cannot be read (")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(FORMATS["a.png"])
    path.chmod(0)
    assert str(_outcome(path, str(path))).startswith("cannot be read (Permission denied)")
