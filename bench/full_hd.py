"""Photos of 1920 x 1080 as JPEG files, made from others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageOps

WIDTH, HEIGHT = 1920, 1080
_QUALITY = 92


def write_full_hd(sources: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Cut each source to 16:9, enlarge it, and save it; sources repeat mirrored when they run out.

    Args:
        sources: one or more image files.
        count: of the files to write.
        folder: where.
    """
    written = []
    for number, picture in zip(range(count), _endless(sources), strict=False):
        path = folder / f"{number:03d}.jpg"
        picture.save(path, quality=_QUALITY)
        written.append(path)
    return written


def _endless(sources: Sequence[Path]) -> Iterator[Image.Image]:
    turn = 0
    while True:
        for source in sources:
            with Image.open(source) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
            if turn % 2:
                upright = ImageOps.mirror(upright)
            # Another cut at each turn: a network that sees equal photos is not a fair measure.
            centre = (0.5, (0.5, 0.5, 0.25, 0.25, 0.75, 0.75)[turn % 6])
            yield ImageOps.fit(upright, (WIDTH, HEIGHT), Image.Resampling.LANCZOS, centering=centre)
        turn += 1
