"""A program that has told Pillow to pass over damage, as training code does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from model.errors import ImageError
from runtime.sources.photos import decode
from tests.runtime.test_stream import grey


@pytest.fixture(autouse=True)
def _lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "gif", "ppm", "webp"])
def test_a_truncated_photo_is_none(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=rf"a\.{suffix}: "):
        decode(path)


def test_pixels_that_are_still_to_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(grey(9)).save(path)
    with Image.open(path) as picture:
        with pytest.raises(ImageError, match=r"TRUNCATED_IMAGES is set, .*; set it to False"):
            decode(picture)
        picture.load()
        assert decode(picture).shape == (40, 60, 3)
    assert decode(grey(9)).shape == (40, 60, 3)
    # Nobody else's setting was changed.
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
