"""Photos of every kind that people have, and files that are none."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from model.errors import ImageError, UsageError
from runtime.sources.decoded import MAX_PIXELS
from runtime.sources.photos import decode, find_photos

ORIENTATION = 0x0112


def scene(height: int = 24, width: int = 40) -> NDArray[np.uint8]:
    """Four quarters, each of its own colour, so that every turn can be told."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (250, 20, 20)
    pixels[: height // 2, width // 2 :] = (20, 250, 20)
    pixels[height // 2 :, : width // 2] = (20, 20, 250)
    pixels[height // 2 :, width // 2 :] = (240, 240, 240)
    return pixels


# How an upright photo is stored under each orientation: the inverse of what a viewer does.
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = scene()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = stored.getexif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"photo.{suffix}"
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    if suffix == "webp":
        options = {"lossless": True}
    stored.save(path, exif=exif, **options)
    found = decode(path)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= (8 if suffix == "jpg" else 0)


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
            for place in rng.integers(start, start + 26, 3):
                bad[place] = rng.integers(256)
            path.write_bytes(bad)
            shapes.add(decode(path).shape)
    assert shapes <= {(24, 40, 3), (40, 24, 3)}
    assert (24, 40, 3) in shapes


@pytest.mark.parametrize("mode", ["L", "LA", "1", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(scene()).convert("RGBA" if mode == "RGBa" else "RGB").convert(mode)
    found = decode(image)
    assert found.shape == (24, 40, 3)
    assert found.dtype == np.uint8
    if mode in ("L", "LA", "1"):
        assert (found[:, :, 0] == found[:, :, 1]).all()
        assert (found[:, :, 0] == found[:, :, 2]).all()
    else:
        assert np.abs(found.astype(int) - scene()).max() <= 12


def test_transparency_is_dropped() -> None:
    alpha = np.zeros((24, 40, 1), np.uint8)
    image = Image.fromarray(np.concatenate((scene(), alpha), axis=2), "RGBA")
    np.testing.assert_array_equal(decode(image), scene())


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(scene()).quantize(8)
    path = tmp_path / "photo.png"
    image.save(path, transparency=0)
    assert np.abs(decode(path).astype(int) - scene()).max() <= 12


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(scene()).convert("CMYK").save(path, quality=100)
    assert np.abs(decode(path).astype(int) - scene()).max() <= 16


def test_colour_profile_is_not_applied(tmp_path: Path) -> None:
    """As torchvision's and detectron2's readers do: the network was trained on raw values."""
    path = tmp_path / "photo.png"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(scene()).save(path, icc_profile=profile)
    np.testing.assert_array_equal(decode(path), scene())


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    grey = (np.arange(24 * 40, dtype=np.uint16) * 68).reshape(24, 40)
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(grey).save(path, "PPM" if suffix == "pgm" else None)
    found = decode(path)
    assert found.shape == (24, 40, 3)
    np.testing.assert_array_equal(found, np.repeat((grey >> 8)[:, :, None], 3, axis=2))


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


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    path = tmp_path / "photo.gif"
    first, second = Image.fromarray(scene()), Image.fromarray(255 - scene())
    first.save(path, save_all=True, append_images=[second])
    assert np.abs(decode(path).astype(int) - scene()).max() <= 12


def _jpeg(size: int = 200) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "not an image", id="empty"),
        pytest.param(b"These are words.\n" * 99, "not an image", id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image", id="svg"),
        pytest.param(_jpeg()[:-3000], "truncated", id="truncated-jpeg"),
        pytest.param(_jpeg()[:200], "damaged or truncated|not an image", id="jpeg-head-only"),
        pytest.param(_png_header(64, 64), "truncated", id="png-without-pixels"),
        pytest.param(_png_header(0, 10), "damaged|not an image|0x10", id="no-columns"),
        pytest.param(_png_header(30000, 30000), f"{MAX_PIXELS} pixels", id="bomb"),
        pytest.param(_png_header(20000, 8000), "truncated", id="large-but-allowed"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "damaged|not an image", id="png-signature-only"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image", id="postscript"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files_are_one_line_that_names_them(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=says) as caught:
        decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_bomb_is_refused_even_where_pillow_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with (
        Image.open(io.BytesIO(_png_header(30000, 30000))) as image,
        pytest.raises(ImageError, match="30000x30000"),
    ):
        decode(image)


def test_truncated_pillow_image_is_an_image_error() -> None:
    with (
        Image.open(io.BytesIO(_jpeg()[:-3000])) as image,
        pytest.raises(ImageError, match="truncated"),
    ):
        decode(image)


def test_damage_anywhere_is_an_image_or_an_image_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "photo"
    decoded = refused = 0
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM"):
        stream = io.BytesIO()
        Image.fromarray(scene()).save(stream, kind)
        good = stream.getvalue()
        for _ in range(60):
            bad = bytearray(good[: len(good) if rng.random() < 0.5 else rng.integers(len(good))])
            for _ in range(3 if bad else 0):
                bad[rng.integers(min(len(bad), 100))] = rng.integers(256)
            path.write_bytes(bad)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert decode(path).ndim == 3
                decoded += 1
            except ImageError:
                refused += 1
    assert decoded > 20
    assert refused > 100


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="a folder"):
        decode(tmp_path)


def test_path_may_be_a_string(tmp_path: Path) -> None:
    path = tmp_path / "ein Bild ✓.png"
    Image.fromarray(scene()).save(path)
    np.testing.assert_array_equal(decode(str(path)), scene())


def test_arrays_are_taken_as_they_are() -> None:
    np.testing.assert_array_equal(decode(scene()), scene())
    grey = scene()[:, :, 0]
    np.testing.assert_array_equal(decode(grey), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize(
    ("array", "says"),
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
        pytest.param(np.full((4, 4), np.nan, np.float32), "got float32", id="grey-nan"),
        pytest.param(np.zeros((4, 4, 3), np.int8), "got int8", id="int8"),
        pytest.param(np.zeros((4, 4, 3), np.int64), "got int64", id="int64"),
        pytest.param(np.zeros((4, 4, 3), np.complex64), "got complex64", id="complex"),
        pytest.param(np.full((4, 4, 3), None, object), "got object", id="object"),
        pytest.param(np.full((4, 4, 3), "a"), "got <U1", id="text"),
        pytest.param(np.zeros((4, 4), "u1,u1,u1"), "got ", id="fields"),
        pytest.param(np.zeros((4, 4, 3), "M8[s]"), "got datetime64", id="dates"),
    ],
)
def test_bad_arrays(array: NDArray[Any], says: str) -> None:
    with pytest.raises(ImageError, match=says):
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
        pytest.param(np.broadcast_to(np.uint8(7), (4, 5)), np.full((4, 5, 3), 7), id="grey"),
        pytest.param(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3)), id="1x1"),
        pytest.param(np.zeros((10000, 1), np.uint8), np.zeros((10000, 1, 3)), id="10000x1"),
    ],
)
def test_arrays_in_any_layout(array: NDArray[Any], expected: NDArray[Any]) -> None:
    before = array.copy()
    found = decode(array)
    assert type(found) is np.ndarray
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
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


def test_places_keep_their_order_and_globs_expand(tmp_path: Path) -> None:
    _make(tmp_path, "x/2.jpg", "x/1.jpg", "y/3.jpg", "z.any")
    places = [str(tmp_path / "z.any"), str(tmp_path / "x" / "*.jpg"), str(tmp_path / "**" / "3.*")]
    assert [p.name for p in find_photos(places)] == ["z.any", "1.jpg", "2.jpg", "3.jpg"]


def test_file_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    _make(tmp_path, "photo[1].jpg")
    assert find_photos([str(tmp_path / "photo[1].jpg")]) == [tmp_path / "photo[1].jpg"]


def test_folders_named_as_photos_are_left_out(tmp_path: Path) -> None:
    _make(tmp_path, "a.png", "frames.png/b.png")
    assert find_photos([str(tmp_path)]) == [tmp_path / "a.png"]


@pytest.mark.parametrize("place", ["none.jpg", "*.jpg", "empty", "x" * 5000, "a\0b", "a\0/*"])
def test_place_without_photos_is_a_usage_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no photo there"):
        find_photos([str(tmp_path / place)])
