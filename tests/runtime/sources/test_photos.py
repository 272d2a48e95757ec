"""Photos in every form, and files that are not photos."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from model.errors import ImageError, UsageError
from runtime.sources.photos import decode, find_photos
from runtime.sources.regular_file import open_regular
from tests.runtime.raising import raising

ORIENTATION = 0x0112


def scene(height: int = 24, width: int = 40) -> NDArray[np.uint8]:
    """Four quarters of different colors, which show every rotation."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (250, 20, 20)
    pixels[: height // 2, width // 2 :] = (20, 250, 20)
    pixels[height // 2 :, : width // 2] = (20, 20, 250)
    pixels[height // 2 :, width // 2 :] = (240, 240, 240)
    return pixels


# An upright photo as stored under each orientation: the inverse of a viewer's rotation.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[:, ::-1],
}


def test_damaged_and_rotated_pillow_images() -> None:
    image = Image.fromarray(np.ascontiguousarray(STORED[6](scene())))
    image.getexif()[ORIENTATION] = 6
    np.testing.assert_array_equal(decode(image), scene())
    with (
        Image.open(io.BytesIO(_jpeg()[:-3000])) as image,
        pytest.raises(ImageError, match="truncated"),
    ):
        decode(image)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_changes_nothing(orientation: int) -> None:
    image = Image.fromarray(scene())
    image.getexif()[ORIENTATION] = orientation
    np.testing.assert_array_equal(decode(image), scene())


def test_damaged_exif_leaves_the_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(scene())
    exif = image.getexif()
    exif[ORIENTATION] = 6
    path = tmp_path / "photo.jpg"
    image.save(path, exif=exif, quality=95)
    good = path.read_bytes()
    start = good.index(b"Exif") + 6
    rng = np.random.default_rng(0)
    shapes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            bad = bytearray(good)
            for offset in rng.integers(start, start + 26, 3):
                bad[offset] = rng.integers(256)
            path.write_bytes(bad)
            shapes.add(decode(path).shape)
    assert shapes <= {(24, 40, 3), (40, 24, 3)}
    assert (24, 40, 3) in shapes


@pytest.mark.parametrize("mode", ["L", "LA", "1", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(scene()).convert("RGBA" if mode == "RGBa" else "RGB").convert(mode)
    pixels = decode(image)
    assert pixels.shape == (24, 40, 3)
    assert pixels.dtype == np.uint8
    if mode in ("L", "LA", "1"):
        assert (pixels[:, :, 0] == pixels[:, :, 1]).all()
        assert (pixels[:, :, 0] == pixels[:, :, 2]).all()
    else:
        assert np.abs(pixels.astype(int) - scene()).max() <= 12


def test_other_depths_are_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for case, values in [
        ("beyond-16-bit", np.full((4, 4), 70000, np.int32)),
        ("negative", np.full((4, 4), -1, np.int32)),
        ("float", np.full((4, 4), 0.5, np.float32)),
        ("nan", np.full((4, 4), np.nan, np.float32)),
    ]:
        with subtests.test(case):
            path = tmp_path / "photo.tif"
            Image.fromarray(values).save(path)
            with pytest.raises(ImageError, match="expected 8 or 16 bits per channel") as caught:
                decode(path)
            assert str(path) in str(caught.value)


def _jpeg(size: int = 200) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def test_path_may_be_a_string(tmp_path: Path) -> None:
    path = tmp_path / "ein Bild ✓.png"
    Image.fromarray(scene()).save(path)
    np.testing.assert_array_equal(decode(str(path)), scene())
    # As in torchvision's and detectron2's readers: the network was trained on raw values.
    path = tmp_path / "photo.png"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(scene()).save(path, icc_profile=profile)
    np.testing.assert_array_equal(decode(path), scene())


def test_pixels_are_used_unchanged() -> None:
    np.testing.assert_array_equal(decode(scene()), scene())
    gray = scene()[:, :, 0]
    np.testing.assert_array_equal(decode(gray), np.stack([gray] * 3, axis=2))
    alpha = np.zeros((24, 40, 1), np.uint8)
    image = Image.fromarray(np.concatenate((scene(), alpha), axis=2), "RGBA")
    np.testing.assert_array_equal(decode(image), scene())


def test_bad_arrays(subtests: pytest.Subtests) -> None:
    for array, message in [
        (np.zeros((0, 10, 3), np.uint8), "10x0"),
        (np.zeros((10, 0, 3), np.uint8), "0x10"),
        (np.zeros((0, 0), np.uint8), "0x0"),
        (np.zeros((4, 4, 3), np.float32), "got float32"),
        (np.zeros((4, 4, 3), np.uint16), "got uint16"),
        (np.zeros((4, 4, 3), np.bool_), "got bool"),
        (np.zeros((3, 4, 4), np.uint8), r"\[3, 4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\[1, 4, 4, 3\]"),
        (np.zeros(4, np.uint8), r"\[4\]"),
        (np.array(7, np.uint8), r"uint8 \[\]"),
        (np.zeros((4, 4, 1), np.uint8), r"\[4, 4, 1\]"),
        (np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\]"),
        (np.zeros((4, 4, 0), np.uint8), r"\[4, 4, 0\]"),
        (np.full((4, 4, 3), np.nan), "got float64"),
        (np.full((4, 4, 3), np.inf, np.float16), "got float16"),
        (np.full((4, 4), np.nan, np.float32), "got float32"),
        (np.zeros((4, 4, 3), np.int8), "got int8"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.zeros((4, 4, 3), np.complex64), "got complex64"),
        (np.full((4, 4, 3), None, object), "got object"),
        (np.full((4, 4, 3), "a"), "got <U1"),
        (np.zeros((4, 4), "u1,u1,u1"), "got "),
        (np.zeros((4, 4, 3), "M8[s]"), "got datetime64"),
    ]:
        with subtests.test(message), pytest.raises(ImageError, match=message):
            decode(array)


def _scattered() -> NDArray[np.uint8]:
    wide = np.zeros((24, 80, 3), np.uint8)
    wide[:, ::2] = scene()
    return wide[:, ::2]


def _read_only() -> NDArray[np.uint8]:
    pixels = scene()
    pixels.setflags(write=False)
    return pixels


def test_arrays_in_any_layout(subtests: pytest.Subtests) -> None:
    for case, array, expected in [
        ("negative-strides", scene()[::-1, ::-1], scene()[::-1, ::-1].copy()),
        ("channels-backwards", scene()[..., ::-1], scene()[..., ::-1].copy()),
        ("every-other-column", _scattered(), scene()),
        ("columns-first", np.asfortranarray(scene()), scene()),
        ("read-only", _read_only(), scene()),
        ("masked", np.ma.masked_less(scene(), 100), scene()),
        ("strides-of-0", np.broadcast_to(np.uint8(7), (4, 5, 3)), np.full((4, 5, 3), 7)),
        ("gray", np.broadcast_to(np.uint8(7), (4, 5)), np.full((4, 5, 3), 7)),
        ("1x1", np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3))),
        ("10000x1", np.zeros((10000, 1), np.uint8), np.zeros((10000, 1, 3))),
    ]:
        with subtests.test(case):
            before = array.copy()
            pixels = decode(array)
            assert type(pixels) is np.ndarray
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, expected)
            np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("shape", [(100_000, 100_000), (100_000, 100_000, 3)])
def test_array_larger_than_the_memory_is_refused_before_it_is_copied(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(ImageError, match="100000x100000 is more than"):
        decode(np.broadcast_to(np.uint8(0), shape))


@pytest.mark.parametrize("thing", [None, 7, b"photo.jpg", [1, 2]], ids=str)
def test_other_types_are_named(thing: Any) -> None:
    with pytest.raises(ImageError, match=f"got {type(thing).__name__}"):
        decode(thing)


def _make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_find_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, "b.JPG", "a.png", "c.txt", "sub/d.jpg", "e.jpeg")
    assert [p.name for p in find_photos([str(tmp_path)])] == ["a.png", "b.JPG", "e.jpeg"]
    _make(tmp_path, "x/2.jpg", "x/1.jpg", "y/3.jpg", "z.any")
    inputs = [str(tmp_path / "z.any"), str(tmp_path / "x" / "*.jpg"), str(tmp_path / "**" / "3.*")]
    assert [p.name for p in find_photos(inputs)] == ["z.any", "1.jpg", "2.jpg", "3.jpg"]
    _make(tmp_path, "photo[1].jpg")
    assert find_photos([str(tmp_path / "photo[1].jpg")]) == [tmp_path / "photo[1].jpg"]
    _make(tmp_path, "d/a.png", "d/frames.png/b.png")
    assert find_photos([str(tmp_path / "d")]) == [tmp_path / "d" / "a.png"]
    monkeypatch.setattr(Path, "iterdir", raising(PermissionError(13, "Permission denied")))
    with pytest.raises(UsageError, match=r"cannot be listed \(Permission denied\)"):
        find_photos([str(tmp_path)])


@pytest.mark.parametrize("text", ["none.jpg", "*.jpg", "empty", "x" * 5000, "a\0b", "a\0/*"])
def test_an_input_without_photos_is_a_usage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no photos found"):
        find_photos([str(tmp_path / text)])


def test_photos_without_files_or_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="no file can have this name"):
        open_regular(tmp_path / "a\0b.jpg")
    with pytest.raises(ImageError, match=r"cannot be read \(File name too long\)"):
        open_regular(tmp_path / ("a" * 300 + ".jpg"))
    image = Image.new("P", (3, 2))
    image.palette.palette = b""
    with pytest.raises(ImageError, match="a palette image without its palette"):
        decode(image)
    image = Image.new("L", (3, 2))
    monkeypatch.setattr(image, "load", raising(MemoryError()))
    with pytest.raises(ImageError, match="larger than the memory; scale it down"):
        decode(image)
