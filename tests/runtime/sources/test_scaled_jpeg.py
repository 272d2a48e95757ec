"""JPEGs at a fraction of their size: never below the target, upright, and close to exact."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.errors import ImageError
from model.spec import PreprocessSpec
from runtime.preprocessing.canvas import resize, resized_hw
from runtime.sources.photos import decode, decode_at_least
from tests.hostile.image_files import exif, with_exif
from tests.hostile.photo_corpus import STORED


def _blocks(height: int, width: int) -> NDArray[np.uint8]:
    """Grays that change at multiples of 8 only, so that each block is uniform at every fraction."""
    rng = np.random.default_rng(0)
    grays = rng.integers(0, 256, (-(-height // 8), -(-width // 8)), np.uint8)
    large = grays.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return np.repeat(large[:, :, None], 3, axis=2)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(stream, "JPEG", quality=100, subsampling=0)
    return stream.getvalue()


def _fraction(full: tuple[int, int], target: tuple[int, int]) -> int:
    """The largest of 8, 4, 2 whose sides, rounded up, reach the target."""
    for scale in (8, 4, 2):
        sides = [(side + scale - 1) // scale for side in full]
        if scale <= min(full) and sides[0] >= target[0] and sides[1] >= target[1]:
            return scale
    return 1


SIZES = [(64, 96), (65, 97), (15, 8), (9, 33), (7, 64), (3, 5), (1, 1), (120, 16), (33, 31)]


@pytest.mark.parametrize("full", SIZES, ids=str)
def test_the_scale_is_the_smallest_that_is_enough(tmp_path: Path, full: tuple[int, int]) -> None:
    path = tmp_path / "photo.jpg"
    pixels = _blocks(*full)
    path.write_bytes(_jpeg(pixels))
    rng = np.random.default_rng(1)
    targets = [(1, 1), full, (full[0] + 1, 1), ((full[0] + 1) // 2, (full[1] + 1) // 2)]
    targets += [(int(h), int(w)) for h, w in rng.integers(1, max(full) + 2, (40, 2))]
    scales = set()
    for size in targets:
        scale = _fraction(full, size)
        scales.add(scale)
        decoded = decode_at_least(path, lambda hw, size=size: size)
        assert decoded.full_hw == full
        np.testing.assert_array_equal(decoded.pixels, pixels[::scale, ::scale])
    assert 1 in scales
    assert len(scales) > 1 or min(full) < 8


@pytest.mark.parametrize("orientation", STORED)
def test_the_target_is_of_the_upright_photo(tmp_path: Path, orientation: int) -> None:
    upright = _blocks(64, 160)
    path = tmp_path / "photo.jpg"
    path.write_bytes(with_exif(_jpeg(STORED[orientation](upright)), exif(orientation)))
    sizes = []

    def target(hw: tuple[int, int]) -> tuple[int, int]:
        sizes.append(hw)
        return 16, 40

    decoded = decode_at_least(path, target)
    assert sizes == [(64, 160)]
    assert decoded.full_hw == (64, 160)
    np.testing.assert_array_equal(decoded.pixels, upright[::4, ::4])
    # With one pixel more, a quarter is too small.
    assert decode_at_least(path, lambda hw: (17, 40)).pixels.shape == (32, 80, 3)
    assert decode_at_least(path, lambda hw: (16, 41)).pixels.shape == (32, 80, 3)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_other_formats_stay_whole(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "photo"
    Image.fromarray(_blocks(64, 96)).save(path, image_format)
    decoded = decode_at_least(path, lambda hw: (1, 1))
    assert decoded.full_hw == (64, 96)
    np.testing.assert_array_equal(decoded.pixels, decode(path))


@pytest.mark.parametrize("options", [{"progressive": True}, {"keep_rgb": True}], ids=str)
def test_forms_of_jpeg(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(_blocks(64, 96)).save(path, quality=100, subsampling=0, **options)
    decoded = decode_at_least(path, lambda hw: (8, 12))
    np.testing.assert_array_equal(decoded.pixels, _blocks(64, 96)[::8, ::8])


def test_photos_in_memory_stay_whole() -> None:
    pixels = _blocks(64, 96)
    for photo in (pixels, Image.open(io.BytesIO(_jpeg(pixels)))):
        decoded = decode_at_least(photo, lambda hw: (1, 1))
        assert decoded.full_hw == (64, 96)
        np.testing.assert_array_equal(decoded.pixels, pixels)


def test_an_error_of_the_target_names_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(_jpeg(_blocks(1, 2000)))
    spec = PreprocessSpec()
    with pytest.raises(ImageError) as caught:
        decode_at_least(path, lambda hw: resized_hw(hw, spec))
    assert str(caught.value).startswith(f"{path}: ")


def test_difference_from_full_decoding(demo_photo: Path) -> None:
    """The numbers in the docstring, in levels of 255."""
    spec = dataclasses.replace(PreprocessSpec(), short_side=240, long_side=400)
    full = decode(demo_photo)
    decoded = decode_at_least(demo_photo, lambda hw: resized_hw(hw, spec))
    assert decoded.pixels.shape == (240, 320, 3)
    assert decoded.full_hw == (480, 640)
    hw = resized_hw(decoded.full_hw, spec)
    difference = 255 * np.abs(resize(full, hw, spec) - resize(decoded.pixels, hw, spec))
    assert 0.1 < difference.mean() < 0.7
    assert 4 < difference.max() < 32.5
