"""A program that set Pillow to accept truncated files, as training code does."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from model.errors import ImageError
from runtime.sources.photos import decode
from tests.runtime.test_stream import gray


@pytest.fixture(autouse=True)
def _lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


def _truncated(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
def test_a_truncated_photo_gives_a_warning(suffix: str, tmp_path: Path) -> None:
    path = _truncated(tmp_path / f"a.{suffix}")
    with pytest.warns(UserWarning, match=r"TRUNCATED_IMAGES is set: .*; set it to False"):
        assert decode(path).shape == (64, 96, 3)


def test_it_is_refused_without_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode(_truncated(tmp_path / "a.jpg"))


def test_a_whole_photo_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gray(9)).save(path)
    with pytest.warns(UserWarning, match="TRUNCATED_IMAGES"):
        np.testing.assert_array_equal(decode(path), gray(9))
    with Image.open(path) as picture:
        picture.load()
        with warnings.catch_warnings():  # all of it is decoded
            warnings.simplefilter("error")
            assert decode(picture).shape == (40, 60, 3)
    # The program's setting is unchanged.
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
