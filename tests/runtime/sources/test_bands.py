"""Photos of other channels than RGB: what files, Pillow images and arrays give a model."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.errors import ImageError, MissingDependencyError, UsageError
from runtime.drawing.source_image import displayed
from runtime.sources.photos import decode, decode_as, upright_size
from runtime.sources.pixel_format import PixelFormat, parse_value_range

tifffile = pytest.importorskip("tifffile")

RANDOM = np.random.default_rng(4)
BYTES = RANDOM.integers(0, 256, (40, 30, 6), np.uint8)
WORDS = RANDOM.integers(0, 65536, (40, 30, 6), np.uint16)
FIRST = WORDS.transpose(2, 0, 1)  # bands first
GRAY = {"photometric": "minisblack", "planarconfig": "contig"}
PLANES = {"photometric": "minisblack", "planarconfig": "separate"}
TILES = {"tile": (16, 16)}


def written(path: Path, array: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


def png_of(array: np.ndarray) -> bytes:
    """A 16-bit PNG file of two to four channels, which Pillow cannot write."""
    height, width, channels = array.shape
    color = {2: 4, 3: 2, 4: 6}[channels]
    rows = array.astype(">u2").reshape(height, -1).view(np.uint8)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    data = zlib.compress(lines.tobytes())
    parts = ((b"IHDR", header), (b"IDAT", data[:100]), (b"IDAT", data[100:]), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


# Name, samples as written, options, channels of the model, expected pixels.
TIFFS: tuple[tuple[str, np.ndarray, dict[str, Any], int, np.ndarray], ...] = (
    ("four bytes", BYTES[..., :4], GRAY, 4, BYTES[..., :4]),
    ("LZW", BYTES[..., :4], GRAY | {"compression": "lzw"}, 4, BYTES[..., :4]),
    ("predictor", WORDS, GRAY | {"compression": "deflate", "predictor": True}, 6, WORDS),
    ("six words", WORDS, GRAY, 6, WORDS),
    ("planes", FIRST, PLANES, 6, WORDS),
    ("tiled planes", FIRST, PLANES | TILES | {"compression": "zstd"}, 6, WORDS),
    ("big-endian", WORDS, GRAY | TILES | {"bigtiff": True, "byteorder": ">"}, 6, WORDS),
    ("a page per band", FIRST, {"photometric": "minisblack"}, 6, WORDS),
    ("ImageJ", FIRST, {"imagej": True}, 6, WORDS),
    (
        "alpha as a band",
        BYTES[..., :4],
        {"photometric": "rgb", "extrasamples": ["assocalpha"]},
        4,
        BYTES[..., :4],
    ),
    ("alpha dropped", WORDS[..., :2], GRAY | {"extrasamples": ["unassalpha"]}, 1, WORDS[..., :1]),
    ("gray", BYTES[..., 0], {}, 1, BYTES[..., :1]),
    ("deep gray", WORDS[..., 0], {}, 1, WORDS[..., :1]),
    ("white is 0", BYTES[..., 0], {"photometric": "miniswhite"}, 1, 255 - BYTES[..., :1]),
    ("deep white is 0", WORDS[..., 0], {"photometric": "miniswhite"}, 1, 65535 - WORDS[..., :1]),
    (
        "turned",
        WORDS,
        GRAY | {"extratags": [(274, "H", 1, 6, True)]},
        6,
        np.rot90(WORDS, -1),
    ),
)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow, of big-endian BigTIFF
def test_bands_of_tiff_files(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, samples, options, channels, expected in TIFFS:
        with subtests.test(name):
            path = written(tmp_path / "photo.tif", samples, **options)
            pixels = decode_as(path, PixelFormat(channels))
            np.testing.assert_array_equal(pixels, expected, strict=True)
            assert upright_size(path).hw == expected.shape[:2]


def test_bands_of_png_files(tmp_path: Path, subtests: pytest.Subtests) -> None:
    path = tmp_path / "photo.png"
    for channels in (2, 3, 4):
        with subtests.test("16 bits", channels=channels):
            expected = np.ascontiguousarray(WORDS[..., :channels])
            path.write_bytes(png_of(expected))
            pixels = decode_as(path, PixelFormat(channels, (0, 65535)))
            np.testing.assert_array_equal(pixels, expected, strict=True)
    for mode, channels in (("L", 1), ("LA", 2), ("RGBA", 4), ("RGB", 3)):
        with subtests.test(mode):
            expected = np.ascontiguousarray(BYTES[..., :channels])
            image = Image.fromarray(expected.squeeze(), mode)
            image.save(path)
            for photo in (path, image):
                pixels = decode_as(photo, PixelFormat(channels, (0, 255)))
                np.testing.assert_array_equal(pixels, expected, strict=True)
    with subtests.test("16-bit gray"):
        Image.fromarray(WORDS[..., 0]).save(path)
        pixels = decode_as(path, PixelFormat(1))
        np.testing.assert_array_equal(pixels, WORDS[..., :1], strict=True)


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientations_are_pillows(turn: int, tmp_path: Path) -> None:
    image = Image.fromarray(np.ascontiguousarray(BYTES[..., :3]))
    exif = Image.Exif()
    exif[274] = turn
    image.save(tmp_path / "photo.png", exif=exif)
    pixels = decode_as(tmp_path / "photo.png", PixelFormat(3, (0, 255)))
    np.testing.assert_array_equal(pixels, decode(tmp_path / "photo.png"))


def test_values_are_scaled_to_255(subtests: pytest.Subtests) -> None:
    rows: tuple[tuple[np.ndarray, tuple[float, float] | None, list[float]], ...] = (
        (np.array([0, 257, 65535], np.uint16), None, [0, 1, 255]),
        (np.array([0, 819, 4095, 5000], np.uint16), (0, 4095), [0, 51, 255, 255]),
        (np.array([-100, 0, 100], np.int16), (-100, 100), [0, 127.5, 255]),
        (np.array([0.25, 0.5, 2.0], np.float32), (0, 1), [63.75, 127.5, 255]),
        (np.array([0, 3 << 30], np.uint32), (0, 3 << 30), [0, 255]),
    )
    for samples, value_range, expected in rows:
        with subtests.test(str(samples.dtype), value_range=value_range):
            form = PixelFormat(1, value_range)
            pixels = decode_as(samples[None, :, None], form)
            scaled = form.scaled(pixels)
            assert scaled.dtype == np.float32
            np.testing.assert_allclose(scaled.ravel(), expected, rtol=2e-7)
    plain = PixelFormat(4).scaled(BYTES[..., :4])
    assert plain.dtype == np.uint8


def test_refusals(tmp_path: Path, subtests: pytest.Subtests) -> None:
    real = WORDS[..., :4].astype(np.float32)
    nan = np.full((4, 5, 4), np.nan, np.float32)
    ink = {"photometric": "separated"}
    rows: tuple[tuple[Any, dict[str, Any], PixelFormat, str], ...] = (
        (WORDS, GRAY, PixelFormat(4), "expected 4 channels, as the model takes, got 6"),
        (BYTES[..., :3], {"photometric": "rgb"}, PixelFormat(4), "4 channels.*got 3"),
        (BYTES[..., :3], {"photometric": "rgb"}, PixelFormat(1), "1 channel, .*got 3"),
        (FIRST, {"photometric": "minisblack"}, PixelFormat(4), "4 channels.*got 1"),
        (real, GRAY, PixelFormat(4), "float32 samples .*--value-range LOW:HIGH"),
        (nan, GRAY, PixelFormat(4, (0, 1)), "not finite"),
        (WORDS[..., 0] >> 4, {"bitspersample": 12}, PixelFormat(1), "12 bits; .* 0:4095"),
        (BYTES[..., :4], GRAY, PixelFormat(4, (0, 4095)), "uint8 samples end at 255"),
        (BYTES[..., :4], ink, PixelFormat(4), r"inks \(CMYK\)"),
        (BYTES[..., :4], GRAY | {"compression": "jpeg"}, PixelFormat(4), "compressed by JPEG"),
        (real.astype(np.complex64), GRAY, PixelFormat(4), "complex64"),
    )
    for samples, options, form, message in rows:
        with subtests.test(message):
            path = written(tmp_path / "photo.tif", samples, **options)
            with pytest.raises(ImageError, match=message) as caught:
                decode_as(path, form)
            assert str(caught.value).startswith(str(path))
            assert "\n" not in str(caught.value)
    for array in (BYTES, BYTES[..., 0], BYTES[None]):
        with subtests.test("an array"), pytest.raises(ImageError, match=r"\[h, w, 4\]"):
            decode_as(array, PixelFormat(4))


def test_an_rgb_model_names_the_bands_of_a_tiff_file(tmp_path: Path) -> None:
    path = written(tmp_path / "six.tif", WORDS, **GRAY)
    with pytest.raises(ImageError, match="a TIFF of 6 bands of 16 bits"):
        decode(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow, of big-endian BigTIFF
def test_damaged_tiff_files(tmp_path: Path, subtests: pytest.Subtests) -> None:
    path = tmp_path / "photo.tif"
    for compression in (None, "deflate", "lzw"):
        content = written(path, WORDS, **GRAY, compression=compression, rowsperstrip=8).read_bytes()
        for cut in (8, len(content) // 2, len(content) - 9):
            with subtests.test(compression=compression, cut=cut):
                path.write_bytes(content[:cut])
                with pytest.raises(ImageError, match="truncated"):
                    decode_as(path, PixelFormat(6))
    with subtests.test("a strip of too few rows"):
        content = written(path, WORDS, **GRAY, compression="deflate", rowsperstrip=8).read_bytes()
        with tifffile.TiffFile(path) as tiff:
            start, size = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
        short = zlib.compress(WORDS[:4].tobytes()).ljust(size, b"\0")
        path.write_bytes(content[:start] + short + content[start + size :])
        with pytest.raises(ImageError, match="damaged"):
            decode_as(path, PixelFormat(6))


def test_sizes_are_limited_before_the_samples_are_read(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    changes: dict[str, Callable[[Any], Any]] = {
        "ImageWidth": lambda tiff: tiff.pages[0].tags[256],
        "TileWidth": lambda tiff: tiff.pages[0].tags[322],
    }
    for name, tag_of in changes.items():
        with subtests.test(name):
            path = written(tmp_path / "photo.tif", WORDS, **GRAY, **TILES)
            with tifffile.TiffFile(path, mode="r+") as tiff:
                tag_of(tiff).overwrite(1 << 30, dtype="I")
            with pytest.raises(ImageError, match="is more than 178956970 pixels"):
                decode_as(path, PixelFormat(6))


def test_without_tifffile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "photo.tif", WORDS, **GRAY)
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'maskport[tiff]'")):
        decode_as(path, PixelFormat(6))


def test_bands_to_draw_on(subtests: pytest.Subtests) -> None:
    rows: tuple[tuple[int, tuple[int, ...] | None, list[int]], ...] = (
        (4, None, [0, 1, 2]),
        (2, None, [0, 0, 0]),
        (1, None, [0, 0, 0]),
        (6, (4, 1, 6), [3, 0, 5]),
        (6, (5,), [4, 4, 4]),
    )
    for channels, bands, expected in rows:
        with subtests.test(channels=channels, bands=bands):
            pixels = BYTES[..., :channels]
            shown = displayed(pixels, PixelFormat(channels), bands)
            np.testing.assert_array_equal(shown, pixels[..., expected], strict=True)
    words = displayed(WORDS, PixelFormat(6))
    np.testing.assert_array_equal(words, np.rint(WORDS[..., :3] / 257).astype(np.uint8))
    for wrong in ((0, 1, 2), (1, 2, 5), (1, 2)):
        with subtests.test(wrong=wrong), pytest.raises(UsageError, match=r"--bands: .* 1 to 4"):
            displayed(BYTES[..., :4], PixelFormat(4), wrong)


@pytest.mark.parametrize("text", ["", "4095", "0:", "5:5", "9:1", "0:nan", "0:1:2", "a:b"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected LOW:HIGH"):
        parse_value_range(text)
