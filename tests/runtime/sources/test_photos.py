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


def test_exif_of_a_pillow_image_is_applied() -> None:
    image = Image.fromarray(np.ascontiguousarray(STORED[6](scene())))
    image.getexif()[ORIENTATION] = 6
    np.testing.assert_array_equal(decode(image), scene())


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


def test_transparency_is_dropped() -> None:
    alpha = np.zeros((24, 40, 1), np.uint8)
    image = Image.fromarray(np.concatenate((scene(), alpha), axis=2), "RGBA")
    np.testing.assert_array_equal(decode(image), scene())


def test_color_profile_is_not_applied(tmp_path: Path) -> None:
    """As in torchvision's and detectron2's readers: the network was trained on raw values."""
    path = tmp_path / "photo.png"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(scene()).save(path, icc_profile=profile)
    np.testing.assert_array_equal(decode(path), scene())


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.full((4, 4), 70000, np.int32), id="beyond-16-bit"),
        pytest.param(np.full((4, 4), -1, np.int32), id="negative"),
        pytest.param(np.full((4, 4), 0.5, np.float32), id="float"),
        pytest.param(np.full((4, 4), np.nan, np.float32), id="nan"),
    ],
)
def test_other_depths_are_refused(tmp_path: Path, values: NDArray[Any]) -> None:
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


def test_truncated_pillow_image_is_an_image_error() -> None:
    with (
        Image.open(io.BytesIO(_jpeg()[:-3000])) as image,
        pytest.raises(ImageError, match="truncated"),
    ):
        decode(image)


def test_path_may_be_a_string(tmp_path: Path) -> None:
    path = tmp_path / "ein Bild ✓.png"
    Image.fromarray(scene()).save(path)
    np.testing.assert_array_equal(decode(str(path)), scene())


def test_arrays_are_used_unchanged() -> None:
    np.testing.assert_array_equal(decode(scene()), scene())
    gray = scene()[:, :, 0]
    np.testing.assert_array_equal(decode(gray), np.stack([gray] * 3, axis=2))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        pytest.param(np.zeros((0, 10, 3), np.uint8), "10x0", id="no-rows"),
        pytest.param(np.zeros((10, 0, 3), np.uint8), "0x10", id="no-columns"),
        pytest.param(np.zeros((0, 0), np.uint8), "0x0", id="nothing"),
        pytest.param(np.zeros((4, 4, 3), np.float32), "got float32", id="float"),
        pytest.param(np.zeros((4, 4, 3), np.uint16), "got uint16", id="uint16"),
        pytest.param(np.zeros((4, 4, 3), np.bool_), "got bool", id="bool"),
        pytest.param(np.zeros((3, 4, 4), np.uint8), r"\[3, 4, 4\]", id="planes-first"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]", id="four-channels"),
        pytest.param(np.zeros((1, 4, 4, 3), np.uint8), r"\[1, 4, 4, 3\]", id="batch"),
        pytest.param(np.zeros(4, np.uint8), r"\[4\]", id="one-axis"),
        pytest.param(np.array(7, np.uint8), r"uint8 \[\]", id="no-axis"),
        pytest.param(np.zeros((4, 4, 1), np.uint8), r"\[4, 4, 1\]", id="one-channel"),
        pytest.param(np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\]", id="two-channels"),
        pytest.param(np.zeros((4, 4, 0), np.uint8), r"\[4, 4, 0\]", id="no-channel"),
        pytest.param(np.full((4, 4, 3), np.nan), "got float64", id="nan"),
        pytest.param(np.full((4, 4, 3), np.inf, np.float16), "got float16", id="inf"),
        pytest.param(np.full((4, 4), np.nan, np.float32), "got float32", id="gray-nan"),
        pytest.param(np.zeros((4, 4, 3), np.int8), "got int8", id="int8"),
        pytest.param(np.zeros((4, 4, 3), np.int64), "got int64", id="int64"),
        pytest.param(np.zeros((4, 4, 3), np.complex64), "got complex64", id="complex"),
        pytest.param(np.full((4, 4, 3), None, object), "got object", id="object"),
        pytest.param(np.full((4, 4, 3), "a"), "got <U1", id="text"),
        pytest.param(np.zeros((4, 4), "u1,u1,u1"), "got ", id="fields"),
        pytest.param(np.zeros((4, 4, 3), "M8[s]"), "got datetime64", id="dates"),
    ],
)
def test_bad_arrays(array: NDArray[Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(array)


def _scattered() -> NDArray[np.uint8]:
    wide = np.zeros((24, 80, 3), np.uint8)
    wide[:, ::2] = scene()
    return wide[:, ::2]


def _read_only() -> NDArray[np.uint8]:
    pixels = scene()
    pixels.setflags(write=False)
    return pixels


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(scene()[::-1, ::-1], scene()[::-1, ::-1].copy(), id="negative-strides"),
        pytest.param(scene()[..., ::-1], scene()[..., ::-1].copy(), id="channels-backwards"),
        pytest.param(_scattered(), scene(), id="every-other-column"),
        pytest.param(np.asfortranarray(scene()), scene(), id="columns-first"),
        pytest.param(_read_only(), scene(), id="read-only"),
        pytest.param(np.ma.masked_less(scene(), 100), scene(), id="masked"),
        pytest.param(
            np.broadcast_to(np.uint8(7), (4, 5, 3)), np.full((4, 5, 3), 7), id="strides-of-0"
        ),
        pytest.param(np.broadcast_to(np.uint8(7), (4, 5)), np.full((4, 5, 3), 7), id="gray"),
        pytest.param(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3)), id="1x1"),
        pytest.param(np.zeros((10000, 1), np.uint8), np.zeros((10000, 1, 3)), id="10000x1"),
    ],
)
def test_arrays_in_any_layout(array: NDArray[Any], expected: NDArray[Any]) -> None:
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


def test_folder_is_sorted_and_holds_photos_only(tmp_path: Path) -> None:
    _make(tmp_path, "b.JPG", "a.png", "c.txt", "sub/d.jpg", "e.jpeg")
    assert [p.name for p in find_photos([str(tmp_path)])] == ["a.png", "b.JPG", "e.jpeg"]


def test_inputs_keep_their_order_and_globs_expand(tmp_path: Path) -> None:
    _make(tmp_path, "x/2.jpg", "x/1.jpg", "y/3.jpg", "z.any")
    inputs = [str(tmp_path / "z.any"), str(tmp_path / "x" / "*.jpg"), str(tmp_path / "**" / "3.*")]
    assert [p.name for p in find_photos(inputs)] == ["z.any", "1.jpg", "2.jpg", "3.jpg"]


def test_file_name_with_brackets_is_not_a_pattern(tmp_path: Path) -> None:
    _make(tmp_path, "photo[1].jpg")
    assert find_photos([str(tmp_path / "photo[1].jpg")]) == [tmp_path / "photo[1].jpg"]


def test_folders_named_as_photos_are_left_out(tmp_path: Path) -> None:
    _make(tmp_path, "a.png", "frames.png/b.png")
    assert find_photos([str(tmp_path)]) == [tmp_path / "a.png"]


@pytest.mark.parametrize("text", ["none.jpg", "*.jpg", "empty", "x" * 5000, "a\0b", "a\0/*"])
def test_an_input_without_photos_is_a_usage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no photo there"):
        find_photos([str(tmp_path / text)])


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "iterdir", raising(PermissionError(13, "Permission denied")))
    with pytest.raises(UsageError, match=r"cannot be listed \(Permission denied\)"):
        find_photos([str(tmp_path)])


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no file can have this name"):
        open_regular(tmp_path / "a\0b.jpg")


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read \(File name too long\)"):
        open_regular(tmp_path / ("a" * 300 + ".jpg"))


def test_a_palette_image_without_its_palette() -> None:
    image = Image.new("P", (3, 2))
    assert image.palette is not None
    image.palette.palette = b""
    with pytest.raises(ImageError, match="a palette image without its palette"):
        decode(image)


def test_a_photo_larger_than_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("L", (3, 2))
    monkeypatch.setattr(image, "load", raising(MemoryError()))
    with pytest.raises(ImageError, match="larger than the memory; scale it down"):
        decode(image)
