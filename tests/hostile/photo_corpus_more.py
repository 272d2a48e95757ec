"""More of the corpus: TIFF, BMP, GIF, WebP, PNM, truncated files, and files that are no photos."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from tests.hostile import image_files as files
from tests.hostile import photo_corpus as corpus
from tests.hostile.image_files import GRAY, RGB, SHORT
from tests.hostile.photo_corpus import COLORS, DAMAGED, UNKNOWN, Case, unreadable

DEPTH = "expected 8 or 16 bits per channel; convert it"


def _tiffs() -> dict[str, Case]:
    scene, gray, index = corpus.scene(), corpus.gray_scene(), corpus.indices()
    deep = (np.arange(24 * 40).reshape(24, 40) * 67 + 201).astype(np.uint16)
    deep_rgb = np.stack([deep, deep[::-1], deep[:, ::-1]], axis=2)
    high = corpus.as_rgb(deep >> 8)
    twelve = deep >> 4
    bits = "".join(f"{v:012b}" for v in twelve.ravel())
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    colors = np.array(COLORS) * 257
    color_map = [*(list(colors[:, c]) + [0] * 252 for c in range(3))]
    palette = [(320, SHORT, [int(v) for channel in color_map for v in channel])]
    alpha = np.arange(24 * 40, dtype=np.uint8).reshape(24, 40)
    inks = np.dstack([255 - scene, np.zeros((24, 40), np.uint8)])
    signed, floating = [(339, SHORT, [2])], [(339, SHORT, [3])]
    premultiplied = np.dstack([gray, np.full_like(gray, 255)])

    def one(data: bytes, bits: list[int], photometric: int, order: str = "<", more=()) -> bytes:
        return files.tiff(data, 40, 24, bits, photometric, order, more)

    return {
        "rgb.tif": (one(scene.tobytes(), [8] * 3, 2), scene),
        "big-endian.tif": (one(scene.tobytes(), [8] * 3, 2, ">"), scene),
        "planes.tif": (
            files.tiff(
                b"".join(scene[:, :, c].tobytes() for c in range(3)), 40, 24, [8] * 3, 2,
                more=[(284, SHORT, [2]), (273, 4, [8, 968, 1928]), (279, 4, [960] * 3)],
            ),
            scene,
        ),
        "rgba.tif": (
            one(np.dstack([scene, alpha]).tobytes(), [8] * 4, 2, "<", [(338, SHORT, [2])]), scene
        ),
        "gray.tif": (one(gray.tobytes(), [8], 1), corpus.as_rgb(gray)),
        "gray-premultiplied.tif": (
            one(premultiplied.tobytes(), [8] * 2, 1, "<", [(338, SHORT, [1])]),
            corpus.as_rgb(gray),
        ),
        "white-is-0.tif": (one(gray.tobytes(), [8], 0), corpus.as_rgb(255 - gray)),
        "white-is-0-1-bit.tif": (
            one(np.packbits(index % 2, axis=1).tobytes(), [1], 0),
            corpus.as_rgb(255 - index % 2 * 255),
        ),
        "white-is-0-16-bit.tif": (one(deep.tobytes(), [16], 0), 255 - high),
        "gray16.tif": (one(deep.tobytes(), [16], 1), high),
        "gray16-big-endian.tif": (one(deep.astype(">u2").tobytes(), [16], 1, ">"), high),
        "gray12.tif": (one(packed, [12], 1), corpus.as_rgb(twelve >> 4)),
        "rgb16.tif": (one(deep_rgb.tobytes(), [16] * 3, 2), (deep_rgb >> 8).astype(np.uint8)),
        "rgb16-big-endian.tif": (
            one(deep_rgb.astype(">u2").tobytes(), [16] * 3, 2, ">"),
            (deep_rgb >> 8).astype(np.uint8),
        ),
        "palette.tif": (one(index.tobytes(), [8], 3, "<", palette), scene),
        "cmyk.tif": (one(inks.tobytes(), [8] * 4, 5), scene),
        "gray32.tif": (
            one(gray.astype(np.uint32).tobytes(), [32], 1), f"int32 pixels from 10 to 250; {DEPTH}"
        ),
        "negative.tif": (
            one((gray.astype(np.int16) - 100).tobytes(), [16], 1, "<", signed),
            f"int32 pixels from -90 to 150; {DEPTH}",
        ),
        "float.tif": (
            one((gray / np.float32(250)).tobytes(), [32], 1, "<", floating),
            f"float32 pixels from 0.04 to 1; {DEPTH}",
        ),
        "nan.tif": (
            one(np.full((24, 40), np.nan, np.float32).tobytes(), [32], 1, "<", floating),
            f"float32 pixels from nan to nan; {DEPTH}",
        ),
        "deflate.tif": (corpus.saved(scene, "TIFF", compression="tiff_deflate"), scene),
        "lzw.tif": (corpus.saved(scene, "TIFF", compression="tiff_lzw"), scene),
        "two-pages.tif": (
            corpus.saved(
                scene, "TIFF", save_all=True, append_images=[Image.fromarray(255 - scene)]
            ),
            scene,
        ),
        "strip-missing.tif": (files.tiff(bytes(100), 400, 240, [8] * 3, 2), DAMAGED),
        "strip-beyond-the-file.tif": (
            files.tiff(scene.tobytes(), 40, 24, [8] * 3, 2, offset=8 + scene.nbytes), DAMAGED
        ),
        "mark-only.tif": (b"II*\0\x08\0\0\0", unreadable("a damaged TIFF cannot be read")),
    }  # fmt: skip


def _bmps() -> dict[str, Case]:
    scene, index = corpus.scene(), corpus.indices()
    turned = np.ascontiguousarray(scene[::-1, :, ::-1])
    runs = b"".join(
        bytes([16, row[0], 24, row[39], 0, 0]) for row in index[::-1]
    ) + b"\0\1"  # fmt: skip
    fifteen = (scene >> 3).astype(np.uint16)
    words = (fifteen[:, :, 0] << 10 | fifteen[:, :, 1] << 5 | fifteen[:, :, 2])[::-1]
    bits = np.packbits(index[::-1] % 2, axis=1)
    wide = np.zeros((24, 8), np.uint8)
    wide[:, :5] = bits
    nibbles = (index[::-1, ::2] << 4 | index[::-1, 1::2]).astype(np.uint8)
    four = np.dstack([turned, np.zeros((24, 40), np.uint8)])
    return {
        "24.bmp": (files.bmp(turned.tobytes(), 40, 24, 24), scene),
        "top-down.bmp": (files.bmp(scene[:, :, ::-1].tobytes(), 40, -24, 24), scene),
        "32.bmp": (files.bmp(four.tobytes(), 40, 24, 32), scene),
        "16.bmp": (
            files.bmp(words.astype("<u2").tobytes(), 40, 24, 16),
            (fifteen.astype(int) * 255 // 31).astype(np.uint8),
        ),
        "8.bmp": (files.bmp(index[::-1].tobytes(), 40, 24, 8, COLORS), scene),
        "4.bmp": (files.bmp(nibbles.tobytes(), 40, 24, 4, COLORS), scene),
        "1.bmp": (
            files.bmp(wide.tobytes(), 40, 24, 1, COLORS[:2]),
            np.array(COLORS, np.uint8)[index % 2],
        ),
        "run-length.bmp": (files.bmp(runs, 40, 24, 8, COLORS, 1), scene),
        "run-length-cut.bmp": (files.bmp(runs[:60], 40, 24, 8, COLORS, 1), DAMAGED),
        "cut.bmp": (files.bmp(turned.tobytes(), 40, 24, 24)[:-500], DAMAGED),
        "no-columns.bmp": (files.bmp(b"", 0, 24, 24), UNKNOWN),
        "3-bits.bmp": (files.bmp(b"", 40, 24, 3), DAMAGED),
    }


def _gifs_and_webps() -> dict[str, Case]:
    scene, index = corpus.scene(), corpus.indices()
    plain = files.gif(index, COLORS)
    second = plain[plain.index(b",") : -1]
    on_screen = np.empty((48, 80, 3), np.uint8)
    on_screen[:] = COLORS[0]
    on_screen[10:34, 20:60] = scene
    alpha = np.arange(24 * 40, dtype=np.uint8).reshape(24, 40) | 1
    moving = {"save_all": True, "lossless": True}
    transparent = b"!\xf9\x04\x01\0\0\0\0"
    start = plain.index(b",")
    return {
        "plain.gif": (plain, scene),
        "animated.gif": (plain[:-1] + second + b";", scene),
        "transparent.gif": (plain[:start] + transparent + plain[start:], scene),
        "small-on-large.gif": (files.gif(index, COLORS, (80, 48), (20, 10)), on_screen),
        "frame-beyond-its-data.gif": (
            files.gif(index, COLORS, (80, 48), data_of=(80, 48)),
            DAMAGED,
        ),
        "no-frame.gif": (plain[:start] + b";", UNKNOWN),
        "head-only.gif": (plain[:13], UNKNOWN),
        "lossless.webp": (corpus.saved(scene, "WEBP", lossless=True), scene),
        "rgba.webp": (
            corpus.saved(np.dstack([scene, alpha]), "WEBP", lossless=True, exact=True),
            scene,
        ),
        "animated.webp": (
            corpus.saved(scene, "WEBP", append_images=[Image.fromarray(255 - scene)], **moving),
            scene,
        ),
        "cut.webp": (corpus.saved(scene, "WEBP", lossless=True)[:-20], DAMAGED),
    }


def _pnms() -> dict[str, Case]:
    scene, index = corpus.scene(), corpus.indices()
    words = " ".join(str(v) for v in scene.ravel())
    ones = " ".join(str(v) for v in (index % 2).ravel())
    black_is_1 = corpus.as_rgb(255 - index % 2 * 255)
    deep = (np.arange(24 * 40).reshape(24, 40) * 67 + 201).astype(">u2")
    return {
        "plain-text.ppm": (f"P3 40 24 255\n{words}\n".encode(), scene),
        "binary.ppm": (b"P6 # a comment\n40 24\n255\n" + scene.tobytes(), scene),
        "bits-as-text.pbm": (f"P1 40 24\n{ones}\n".encode(), black_is_1),
        "bits.pbm": (b"P4 40 24\n" + np.packbits(index % 2, axis=1).tobytes(), black_is_1),
        "gray16.pgm": (b"P5 40 24 65535\n" + deep.tobytes(), corpus.as_rgb(deep >> 8)),
        "fifteen.pgm": (b"P5 40 24 15\n" + (index * 5).tobytes(), corpus.as_rgb(index * 85)),
        "cut.ppm": (b"P6 40 24 255\n" + scene.tobytes()[:-9], DAMAGED),
        "no-columns.ppm": (b"P6 0 24 255\n", UNKNOWN),
        "words-for-numbers.ppm": (b"P3 2 1 255\n1 2 three 4 5 6\n", DAMAGED),
        "maximum-0.ppm": (b"P6 2 1 0\n" + bytes(6), DAMAGED),
    }


def _no_photos() -> dict[str, Case]:
    plain, kept = corpus.jpeg(corpus.scene()), corpus.through_ycc(corpus.scene())
    return {
        "empty.jpg": (b"", UNKNOWN),
        "words.jpg": (b"These are words.\n" * 99, UNKNOWN),
        "zeros.png": (bytes(5000), UNKNOWN),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UNKNOWN),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UNKNOWN),
        "document.jpg": (b"%PDF-1.7\n" + bytes(99), unreadable("a PDF file cannot be read")),
        "archive.png": (b"PK\x03\x04" + bytes(99), UNKNOWN),
        "phone.jpg": (
            struct.pack(">I", 24) + b"ftypheic" + bytes(99),
            unreadable("a HEIF photo cannot be read"),
        ),
        "icon.png": (_icon(), UNKNOWN),
        "jpeg-named.png": (plain, kept),
        "png-named.jpg": (files.png(corpus.scene(), 8, RGB), corpus.scene()),
        "named-nothing": (files.png(corpus.scene(), 8, RGB), corpus.scene()),
        "named.txt": (files.png(corpus.gray_scene(), 8, GRAY), corpus.as_rgb(corpus.gray_scene())),
    }


def _icon() -> bytes:
    """A format that Pillow could open, and that is not among ours."""
    stream = io.BytesIO()
    Image.fromarray(corpus.scene()).save(stream, "ICO")
    return stream.getvalue()


def _truncated() -> dict[str, Case]:
    """JPEG and PNG, of which so many tenths are there."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    whole = {"jpg": corpus.jpeg(noise), "png": files.png(noise, 8, RGB)}
    return {
        f"{part}-tenths.{suffix}": (data[: len(data) * part // 10], DAMAGED if part else UNKNOWN)
        for suffix, data in whole.items()
        for part in range(10)
    }


def more() -> dict[str, dict[str, Case]]:
    """Families as in `photo_corpus.families`."""
    return {
        "TIFF": _tiffs(), "BMP": _bmps(), "GIF and WebP": _gifs_and_webps(), "PNM": _pnms(),
        "no photos": _no_photos(), "truncated": _truncated(),
    }  # fmt: skip
