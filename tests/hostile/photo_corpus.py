"""Photos in every format, complete and damaged, each with its outcome.

An outcome is the exact pixels, computed in NumPy from what was written, or the start of the error,
after the photo's name.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.hostile import image_files as files
from tests.hostile.image_files import GRAY, GRAY_ALPHA, PALETTE, RGB, RGB_ALPHA, SHORT

Outcome = NDArray[np.uint8] | str
Case = tuple[bytes, Outcome]

UNKNOWN = "unknown image format; expected one of JPEG, PNG, BMP, WEBP, TIFF, GIF, PPM"
DAMAGED = "damaged or truncated image ("
COLORS = ((200, 40, 40), (40, 180, 40), (40, 40, 220), (128, 128, 128))
# What is stored under each orientation of EXIF, for an upright [h, w, c]: a viewer's inverse.
STORED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[:, ::-1],
}


def unreadable(what: str) -> str:
    """The error about a format that is known but not read."""
    return UNKNOWN.replace("unknown image format", what)


def indices() -> NDArray[np.uint8]:
    """Four parts of unequal size, so that every rotation differs; borders at multiples of 8."""
    values = np.zeros((24, 40), np.uint8)
    values[:8, 16:] = 1
    values[8:, :16] = 2
    values[8:, 16:] = 3
    return values


def scene() -> NDArray[np.uint8]:
    return np.array(COLORS, np.uint8)[indices()]


def gray_scene() -> NDArray[np.uint8]:
    return np.array([10, 90, 170, 250], np.uint8)[indices()]


def as_rgb(gray: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)


def through_ycc(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """To JFIF's colors and back, each rounded: a JPEG of even blocks loses nothing else."""
    r, g, b = (rgb[:, :, c].astype(np.float64) for c in range(3))
    y = np.rint(0.299 * r + 0.587 * g + 0.114 * b)
    cb = np.rint(-0.168736 * r - 0.331264 * g + 0.5 * b)
    cr = np.rint(0.5 * r - 0.418688 * g - 0.081312 * b)
    back = (y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb)
    return np.clip(np.rint(np.stack(back, axis=2)), 0, 255).astype(np.uint8)


def saved(pixels: NDArray[np.uint8], kind: str, mode: str | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    (image if mode is None else image.convert(mode)).save(stream, kind, **options)
    return stream.getvalue()


def jpeg(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    return saved(pixels, "JPEG", quality=100, subsampling=0, **options)


def _cmyk(inks: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(stream, "JPEG", quality=100, subsampling=0)
    return stream.getvalue()


def _oriented() -> dict[str, Case]:
    upright, cases = scene(), {}
    for number, stored in STORED.items():
        pixels = np.ascontiguousarray(stored(upright))
        order = "<>"[number % 2]
        data = files.exif(number, order)
        cases[f"exif-{number}.jpg"] = files.with_exif(jpeg(pixels), data), through_ycc(upright)
        cases[f"exif-{number}.png"] = (
            files.png(pixels, 8, RGB, [files.chunk(b"eXIf", data)]), upright
        )  # fmt: skip
        cases[f"exif-{number}.webp"] = saved(pixels, "WEBP", lossless=True, exif=data), upright
        height, width = pixels.shape[:2]
        tags = [(274, SHORT, [number])]
        stored_tiff = files.tiff(pixels.tobytes(), width, height, [8] * 3, 2, order, tags)
        cases[f"exif-{number}.tif"] = stored_tiff, upright
    return cases


def _odd_exif() -> dict[str, Case]:
    plain, sideways = jpeg(scene()), jpeg(np.ascontiguousarray(STORED[6](scene())))
    kept, turned = through_ycc(scene()), through_ycc(STORED[6](scene()))
    six = files.exif(6)
    late = files.png(STORED[6](scene()), 8, RGB, after=[files.chunk(b"eXIf", six)])
    garbage = files.png(scene(), 8, RGB, [files.chunk(b"eXIf", b"\x01" * 9)])
    return {
        "exif-garbage.jpg": (files.with_exif(plain, b"\xfe" * 50), kept),
        "exif-garbage.png": (garbage, scene()),
        "exif-empty.jpg": (files.with_exif(plain, b""), kept),
        "exif-cut.jpg": (files.with_exif(plain, six[:14]), kept),
        "exif-beyond-its-end.jpg": (files.with_exif(plain, b"II*\0\x09\0\0\0"), kept),
        "exif-0.jpg": (files.with_exif(plain, files.exif(0)), kept),
        "exif-9.jpg": (files.with_exif(plain, files.exif(9)), kept),
        "exif-65535.jpg": (files.with_exif(sideways, files.exif(65535)), turned),
        "exif-behind-the-pixels.png": (late, scene()),
    }


def _jpegs() -> dict[str, Case]:
    plain, kept = jpeg(scene()), through_ycc(scene())
    # No black: an ink is what its color lacks. No ink: black is what the gray lacks.
    inks = np.concatenate([255 - scene(), np.zeros((24, 40, 1), np.uint8)], axis=2)
    black = np.zeros((24, 40, 4), np.uint8)
    black[:, :, 3] = 255 - gray_scene()
    # Stored are Y, Cb, Cr and K, all as 255 less; Cb and Cr of 128 are no color.
    ycck = np.full((24, 40, 4), 127, np.uint8)
    ycck[:, :, 0], ycck[:, :, 3] = 255 - gray_scene(), 0
    mark = _cmyk(inks).index(b"\xff\xee\0\x0eAdobe")
    bare = _cmyk(inks)[:mark] + _cmyk(inks)[mark + 16 :]
    two = io.BytesIO()
    frames = [Image.fromarray(p) for p in (scene(), 255 - scene())]
    frames[0].save(two, "MPO", save_all=True, append_images=frames[1:], quality=100, subsampling=0)
    return {
        "plain.jpg": (plain, kept),
        "gray.jpg": (jpeg(gray_scene()), as_rgb(gray_scene())),
        "progressive.jpg": (jpeg(scene(), progressive=True), kept),
        "rgb-without-ycc.jpg": (jpeg(scene(), keep_rgb=True), scene()),
        "cmyk.jpg": (_cmyk(inks), scene()),
        "cmyk-black.jpg": (_cmyk(black), as_rgb(gray_scene())),
        "cmyk-without-adobe.jpg": (bare, scene()),
        "ycck.jpg": (
            _cmyk(ycck)[: mark + 15] + b"\2" + _cmyk(ycck)[mark + 16 :],
            as_rgb(255 - gray_scene()),
        ),
        "two-frames.jpg": (two.getvalue(), kept),
        "bytes-behind.jpg": (plain + b"\0garbage" * 99, kept),
        "comment.jpg": (files.with_segment(plain, 0xFE, b"\xff" * 999), kept),
        "no-columns.jpg": (files.with_size(plain, 0, 24), UNKNOWN),
        "no-rows.jpg": (files.with_size(plain, 40, 0), UNKNOWN),
        "start-only.jpg": (b"\xff\xd8\xff", UNKNOWN),
        "12-bit.jpg": (plain.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), UNKNOWN),
    }  # fmt: skip


def _pngs() -> dict[str, Case]:
    gray, alpha = gray_scene(), (np.arange(24 * 40) % 256).reshape(24, 40)
    deep = (np.arange(24 * 40).reshape(24, 40) * 67 + 201) % 65536
    deep_rgb = np.stack([deep, deep[::-1], deep[:, ::-1]], axis=2)
    plte = files.chunk(b"PLTE", bytes(np.array(COLORS, np.uint8)))
    clear = files.chunk(b"tRNS", b"\0\x80")
    cases: dict[str, Case] = {
        "gray.png": (files.png(gray, 8, GRAY), as_rgb(gray)),
        "gray-alpha.png": (files.png(np.dstack([gray, alpha]), 8, GRAY_ALPHA), as_rgb(gray)),
        "rgba.png": (files.png(np.dstack([scene(), alpha]), 8, RGB_ALPHA), scene()),
        "gray-transparent.png": (
            files.png(gray, 8, GRAY, [files.chunk(b"tRNS", b"\0\x0a")]), as_rgb(gray)
        ),
        "rgb-transparent.png": (
            files.png(scene(), 8, RGB, [files.chunk(b"tRNS", b"\0\xc8\0\x28\0\x28")]), scene()
        ),
        "1-bit.png": (files.png(indices() % 2, 1, GRAY), as_rgb(indices() % 2 * 255)),
        "1-bit-transparent.png": (
            files.png(indices() % 2, 1, GRAY, [files.chunk(b"tRNS", b"\0\1")]),
            as_rgb(indices() % 2 * 255),
        ),
        "2-bit.png": (files.png(indices(), 2, GRAY), as_rgb(indices() * 85)),
        "4-bit.png": (files.png(indices() * 5, 4, GRAY), as_rgb(indices() * 85)),
        "palette-transparent.png": (files.png(indices(), 8, PALETTE, [plte, clear]), scene()),
        "palette-missing.png": (
            files.png(indices(), 8, PALETTE), "a palette image without its palette; save it again"
        ),
        "gray16.png": (files.png(deep, 16, GRAY), as_rgb(deep >> 8)),
        "gray16-transparent.png": (
            files.png(deep, 16, GRAY, [files.chunk(b"tRNS", b"\0\xc9")]), as_rgb(deep >> 8)
        ),
        "gray16-exif-6.png": (
            files.png(
                STORED[6](deep[:, :, None])[:, :, 0], 16, GRAY,
                [files.chunk(b"eXIf", files.exif(6))],
            ),
            as_rgb(deep >> 8),
        ),
        "gray-alpha16.png": (
            files.png(np.dstack([deep, deep]), 16, GRAY_ALPHA), as_rgb(deep >> 8)
        ),
        "rgb16.png": (files.png(deep_rgb, 16, RGB), (deep_rgb >> 8).astype(np.uint8)),
        "rgba16.png": (
            files.png(np.dstack([deep_rgb, deep]), 16, RGB_ALPHA),
            (deep_rgb >> 8).astype(np.uint8),
        ),
        "interlaced.png": (files.png(scene(), 8, RGB, interlaced=True), scene()),
        "interlaced16.png": (files.png(deep, 16, GRAY, interlaced=True), as_rgb(deep >> 8)),
        "1x1.png": (files.png(scene()[:1, :1], 8, RGB), scene()[:1, :1]),
        "1x10000.png": (
            files.png(np.tile(gray[:1, :1], (10000, 1)), 8, GRAY), as_rgb(np.full((10000, 1), 10))
        ),
        "10000x1.png": (
            files.png(np.tile(gray[:1, :1], (1, 10000)), 8, GRAY), as_rgb(np.full((1, 10000), 10))
        ),
    }  # fmt: skip
    for depth in (1, 2, 4, 8):
        values = indices() % 2 if depth == 1 else indices()
        colors = np.array(COLORS, np.uint8)[values]
        cases[f"palette-{depth}-bit.png"] = files.png(values, depth, PALETTE, [plte]), colors
    return cases


def _bad_pngs() -> dict[str, Case]:
    sound = files.png(scene(), 8, RGB)
    second = zlib.compress(bytes(24 * 121))
    moving = [
        files.chunk(b"acTL", struct.pack(">II", 2, 0)),
        files.chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 24, 0, 0, 1, 10, 0, 0)),
    ]
    after = [
        files.chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 40, 24, 0, 0, 1, 10, 0, 0)),
        files.chunk(b"fdAT", struct.pack(">I", 2) + second),
    ]

    def claiming(width: int, height: int, depth: int = 8, color: int = RGB) -> bytes:
        body = files.chunk(b"IDAT", zlib.compress(bytes(100))) + files.chunk(b"IEND", b"")
        return files.SIGNATURE + files.header(width, height, depth, color) + body

    return {
        "animated.png": (files.png(scene(), 8, RGB, moving, after), scene()),
        "no-columns.png": (claiming(0, 10), UNKNOWN),
        "no-rows.png": (claiming(10, 0), UNKNOWN),
        "depth-3.png": (claiming(8, 8, 3), UNKNOWN),
        "color-5.png": (claiming(8, 8, 8, 5), UNKNOWN),
        "signature-only.png": (files.SIGNATURE, UNKNOWN),
        "header-only.png": (files.SIGNATURE + files.header(8, 8, 8, RGB), UNKNOWN),
        "wrong-sum.png": (sound.replace(sound[29:33], b"\0\0\0\0"), UNKNOWN),
        "pixels-missing.png": (claiming(64, 64), DAMAGED),
        "pixels-too-many.png": (
            sound.replace(files.header(40, 24, 8, RGB), files.header(40, 8, 8, RGB)),
            scene()[:8],
        ),
    }


@cache
def families() -> dict[str, dict[str, Case]]:
    """By family, file name to bytes and outcome; the suffix is what a user would see."""
    from tests.hostile.photo_corpus_more import more

    return {
        "oriented": _oriented(), "odd EXIF": _odd_exif(), "JPEG": _jpegs(), "PNG": _pngs(),
        "bad PNG": _bad_pngs(), **more(),
    }  # fmt: skip
