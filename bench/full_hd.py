"""JPEG files of 1920 x 1080, made from other photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageOps

WIDTH, HEIGHT = 1920, 1080
_QUALITY = 92


def write_full_hd(sources: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Crop each source to 16:9, enlarge and save it; sources repeat, mirrored, if there are few.

    Args:
        sources: one or more image files.
        count: number of files to write.
        folder: for the files.
    """
    written = []
    for number, picture in zip(range(count), _endless(sources), strict=False):
        path = folder / f"{number:03d}.jpg"
        picture.save(path, quality=_QUALITY)
        written.append(path)
    return written


def _endless(sources: Sequence[Path]) -> Iterator[Image.Image]:
    cycle = 0
    while True:
        for source in sources:
            with Image.open(source) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
            if cycle % 2:
                upright = ImageOps.mirror(upright)
            # Another crop in each cycle, so that no two photos are equal.
            center = (0.5, (0.5, 0.5, 0.25, 0.25, 0.75, 0.75)[cycle % 6])
            yield ImageOps.fit(upright, (WIDTH, HEIGHT), Image.Resampling.LANCZOS, centering=center)
        cycle += 1
