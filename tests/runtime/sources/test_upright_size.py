"""The size of a photo from its header is that of the decoded photo."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from model.errors import ImageError
from runtime.sources.photos import decode, upright_size

SIZE = (24, 16)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def _late(path: Path, orientation: int) -> None:
    """A PNG file with its EXIF after the pixels, as some tools write it."""
    Image.new("RGB", SIZE).save(path)
    data = b"eXIf" + _exif(orientation).tobytes()[6:]
    chunk = (len(data) - 4).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk + content[-12:])


def test_sizes(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for suffix in (".jpg", ".png", ".tif", ".webp", ".late.png", ".gif", ".bmp", ".ppm"):
        for orientation in (1, 2, 3, 6, 8) if suffix not in (".gif", ".bmp", ".ppm") else (1,):
            with subtests.test(suffix=suffix, orientation=orientation):
                path = tmp_path / f"{orientation}{suffix}"
                if suffix == ".late.png":
                    _late(path, orientation)
                else:
                    Image.new("RGB", SIZE).save(path, exif=_exif(orientation))
                size = upright_size(path)
                assert size.hw == decode(path).shape[:2]
                assert size.hw == (SIZE if orientation in (6, 8) else SIZE[::-1])
                assert size.is_turned == (orientation != 1 or suffix == ".late.png")


def test_only_the_header_is_read(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png"):
        path = tmp_path / f"cut{suffix}"
        note = PngInfo()
        note.add(b"tEXt", b"Comment\0after the pixels", after_idat=True)
        Image.effect_noise((300, 200), 90).save(path, pnginfo=note)
        path.write_bytes(path.read_bytes()[:3000])
        assert upright_size(path).hw == (200, 300)
    path.write_bytes(b"no photo")
    with pytest.raises(ImageError, match="unknown image format"):
        upright_size(path)
