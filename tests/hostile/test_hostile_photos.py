"""Every photo of the corpus comes out as the table says, whichever way it comes in."""

from __future__ import annotations

import io
import os
import resource
import socket
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import ImageError
from runtime.sources.photos import decode, decode_at_least
from tests.hostile.photo_corpus import DAMAGED, UNKNOWN, Outcome, cases

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
]
HINT = "; check permissions and disk"


def _outcome(photo: Path | str | Image.Image, where: str) -> Outcome:
    try:
        return decode(photo)
    except ImageError as error:
        line = str(error)
        assert line.startswith(f"{where}: ")
        assert line.isprintable()
        assert len(line) < 500 + len(where)
        return line.removeprefix(f"{where}: ")


def _check(found: Outcome, expected: Outcome) -> None:
    if isinstance(expected, str):
        assert isinstance(found, str), "decoded, but should be refused"
        assert found.startswith(expected) if expected == DAMAGED else found == expected
    else:
        assert isinstance(found, np.ndarray), found
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", cases())
def test_outcome(tmp_path: Path, name: str) -> None:
    data, expected = cases()[name]
    path = tmp_path / name
    path.write_bytes(data)
    started = time.perf_counter()
    _check(_outcome(path, str(path)), expected)
    assert time.perf_counter() - started < 5
    _check(_outcome(str(path), str(path)), expected)
    # At no fraction: the wanted size is the whole.
    if isinstance(expected, np.ndarray):
        decoded = decode_at_least(path, lambda hw: hw)
        _check(decoded.pixels, expected)
        assert decoded.full_hw == expected.shape[:2]


@pytest.mark.parametrize("name", cases())
def test_outcome_of_an_opened_image(name: str) -> None:
    """Those that Pillow opens at all are then decoded, or refused, as the files are."""
    data, expected = cases()[name]
    try:
        image = Image.open(io.BytesIO(data))
    except Exception:
        assert isinstance(expected, str)
        return
    with image:
        if isinstance(expected, str) and expected == UNKNOWN:
            # Not of a kind that we open, but opened by the user's own choice.
            assert image.format in ("ICO", "EPS")
            return
        _check(_outcome(image, "image"), expected)


@pytest.mark.parametrize("name", [n for n in cases() if "bomb" in n])
def test_bombs_swell_no_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(cases()[name][0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError):
        decode(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 40


def test_folder(tmp_path: Path) -> None:
    assert _outcome(tmp_path, str(tmp_path)) == "a folder; expected an image file"


def test_missing_file(tmp_path: Path) -> None:
    assert _outcome(tmp_path / "a.jpg", str(tmp_path / "a.jpg")) == "no such file; check the path"


def test_link_in_circles(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.symlink_to(path)
    assert _outcome(path, str(path)).startswith("cannot be read (")


def test_names_that_no_file_has(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 3000)
    assert _outcome(path, str(path)) == f"cannot be read (File name too long){HINT}"
    with pytest.raises(ImageError, match="no file can have this name"):
        decode(tmp_path / "a\0b.jpg")


@pytest.mark.timeout(20)
def test_pipe_without_a_writer_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    os.mkfifo(path)
    assert _outcome(path, str(path)) == "a pipe or a device; expected an image file"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_devices(device: str) -> None:
    found = _outcome(device, device)
    assert found == "a pipe or a device; expected an image file" or "cannot be read" in found


def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may be 100 bytes long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.jpg")
        assert str(_outcome("a.jpg", "a.jpg")).startswith("cannot be read (")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(cases()["rgba.png"][0])
    path.chmod(0)
    assert _outcome(path, str(path)) == f"cannot be read (Permission denied){HINT}"


def test_warnings_that_are_errors_stay_image_errors(tmp_path: Path) -> None:
    """`python -W error` must not turn an odd photo into a traceback."""
    for name in ("exif-garbage.jpg", "palette-transparent.png", "large-but-allowed.png"):
        path = tmp_path / name
        path.write_bytes(cases()[name][0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = _outcome(path, str(path))
        if name != "large-but-allowed.png":
            _check(found, cases()[name][1])
