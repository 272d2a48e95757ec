"""The masks of `bench/label_readers.py`, by kind: photos of one size, with bool [D, H, W] each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from examples.shapes import make_scene
from model.arrays import Bool, Float64

PHOTO_HW = (480, 640)
HUGE_HW = (6000, 8000)
PER_PHOTO = 12


def scenes(count: int) -> Iterator[Bool]:
    """The visible masks of synthetic scenes: shapes and rings that hide and cut each other."""
    for seed in range(count):
        yield make_scene([19, seed], PHOTO_HW, PER_PHOTO).masks


def rings(count: int) -> Iterator[Bool]:
    """Rings of a few pixels' width, and rings in rings."""
    rng = np.random.default_rng(20)
    for _ in range(count):
        center = rng.uniform(60, 420, (PER_PHOTO, 2))
        outer = rng.uniform(5, 60, PER_PHOTO)
        inner = outer * rng.uniform(0.2, 0.95, PER_PHOTO)
        radius = _distance(center)
        yield (radius <= outer[:, None, None]) & (radius > inner[:, None, None] - 1)


def thin(count: int) -> Iterator[Bool]:
    """Single pixels, and lines of a pixel's width along x or y, at the border too."""
    rng = np.random.default_rng(21)
    height, width = PHOTO_HW
    for _ in range(count):
        masks = np.zeros((PER_PHOTO, *PHOTO_HW), np.bool_)
        for row, mask in enumerate(masks):
            y, x = int(rng.integers(height)), int(rng.integers(width))
            if row < 4:
                x, y = (x, y, 0, width - 1)[row], (0, height - 1, y, y)[row]
            length = 1 if row % 3 == 0 else int(rng.integers(2, 100))
            across = row % 3 == 1
            mask[y : y + (1 if across else length), x : x + (length if across else 1)] = True
        yield masks


def border(count: int) -> Iterator[Bool]:
    """Discs cut by the photo's borders and corners, and one mask of the whole photo."""
    rng = np.random.default_rng(22)
    height, width = PHOTO_HW
    for _ in range(count):
        center = rng.uniform((0, 0), PHOTO_HW, (PER_PHOTO, 2))
        center[0::4, 0], center[1::4, 0] = 0, height
        center[2::4, 1], center[3::4, 1] = 0, width
        center[4:6, 1] = 0, width
        masks = _distance(center) <= rng.uniform(5, 90, PER_PHOTO)[:, None, None]
        masks[-1] = True
        yield masks


def diagonals(count: int) -> Iterator[Bool]:
    """Lines of a pixel's width in any direction, whose pixels touch at corners."""
    rng = np.random.default_rng(23)
    for _ in range(count):
        masks = np.zeros((PER_PHOTO, *PHOTO_HW), np.bool_)
        for mask in masks:
            start, angle = rng.uniform(150, 330, 2), rng.uniform(0, 2 * np.pi)
            along = np.arange(0, rng.uniform(5, 140), 0.25)[:, None]
            y, x = np.rint(start + along * (np.sin(angle), np.cos(angle))).astype(np.int64).T
            mask[y, x] = True
        yield masks


def pieces(count: int) -> Iterator[Bool]:
    """A disc and specks of up to 3 pixels beside it."""
    rng = np.random.default_rng(24)
    for _ in range(count):
        center = rng.uniform(100, 380, (PER_PHOTO, 2))
        masks = _distance(center) <= rng.uniform(5, 50, PER_PHOTO)[:, None, None]
        for mask, middle in zip(masks, center, strict=True):
            for y, x in rng.normal(middle, 40, (rng.integers(1, 6), 2)).astype(np.int64):
                mask[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = True
        yield masks


def huge(count: int) -> Iterator[Bool]:
    """Discs in a photo of 48 megapixels, some at its right and lower border."""
    rng = np.random.default_rng(25)
    for _ in range(count):
        masks = np.zeros((4, *HUGE_HW), np.bool_)
        for row, mask in enumerate(masks):
            radius = int(rng.integers(3, 200))
            y, x = np.indices((2 * radius, 2 * radius)) - radius + 0.5
            disc = np.hypot(y, x * rng.uniform(1, 2)) <= radius
            left, top = rng.integers((0, 0), np.array(HUGE_HW[::-1]) - 2 * radius)
            if row == 0:
                left, top = HUGE_HW[1] - 2 * radius, HUGE_HW[0] - 2 * radius
            mask[top : top + 2 * radius, left : left + 2 * radius] = disc
        yield masks


KINDS: dict[str, Callable[[int], Iterator[Bool]]] = {
    "scenes": scenes,
    "rings": rings,
    "thin": thin,
    "border": border,
    "huge": huge,
    "diagonals": diagonals,
    "pieces": pieces,
}


def _distance(center_yx: Float64) -> Float64:
    """Of each pixel's center from each point, [D, H, W]."""
    y, x = np.indices(PHOTO_HW) + 0.5
    distance: Float64 = np.hypot(y - center_yx[:, :1, None], x - center_yx[:, 1:, None])
    return distance
