"""Synthetic scenes: colored shapes on textured backgrounds, with exact visible masks.

A scene is a pure function of its seed. Shapes are drawn far to near; each mask is the visible part
of its shape, so holes (rings), occlusion and the image border are exact to the pixel.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Range = tuple[float, float]
Outline = list[tuple[Points, int]]
"""Polygons in units of the shape's radius, y down, drawn in order with coverage 255 or 0."""

_SUPERSAMPLING = 4
_MIN_VISIBLE = 0.6
_DIAMETER_RANGE = (0.06, 0.42)


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture: `image_rgb` uint8 [H, W, 3], `masks` bool [D, H, W], `labels` int64 [D]."""

    image_rgb: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]

    @property
    def boxes_xyxy(self) -> Floats:
        """Tight boxes around the visible masks: float32 [D, 4], pixels, far edges exclusive."""
        boxes = np.zeros((len(self.labels), 4), np.float32)
        for box, mask in zip(boxes, self.masks, strict=True):
            ys, xs = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
            box[:] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
        return boxes


@dataclass(frozen=True, slots=True)
class _Stamp:
    """A shape's coverage, float32 [h, w] in [0, 1], with its top-left pixel in the image."""

    coverage: Floats
    left_px: int
    top_px: int


def _on_circle(count: int, start: float = 0.0) -> Points:
    angles = start + np.arange(count) * (2 * np.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _circle(rng: np.random.Generator) -> Outline:
    return [(_on_circle(96) * (1.0, rng.uniform(0.88, 1.0)), 255)]


def _rectangle(rng: np.random.Generator) -> Outline:
    half = np.array([1.0, rng.uniform(0.5, 1.0)])
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    return [(corners * half / np.linalg.norm(half), 255)]


def _triangle(rng: np.random.Generator) -> Outline:
    return [(_on_circle(3) * (1.0, rng.uniform(0.8, 1.1)), 255)]


def _star(rng: np.random.Generator) -> Outline:
    points = _on_circle(10)
    points[1::2] *= rng.uniform(0.4, 0.5)
    return [(points, 255)]


def _ring(rng: np.random.Generator) -> Outline:
    return [(_on_circle(96), 255), (_on_circle(96) * rng.uniform(0.5, 0.68), 0)]


def _cross(rng: np.random.Generator) -> Outline:
    arm = rng.uniform(0.28, 0.4)
    quarter = np.array([[arm, -arm], [1.0, -arm], [1.0, arm]])
    turns = [np.array([[0, 1], [-1, 0]]), np.array([[-1, 0], [0, -1]]), np.array([[0, -1], [1, 0]])]
    return [(np.concatenate([quarter, *(quarter @ turn for turn in turns)]), 255)]


def _heart(rng: np.random.Generator) -> Outline:
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [(np.stack([x, -y], axis=1) / 17 * (rng.uniform(0.9, 1.0), 1.0), 255)]


_OUTLINES: dict[str, Callable[[np.random.Generator], Outline]] = {
    "circle": _circle,
    "rectangle": _rectangle,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
}
NAMES: tuple[str, ...] = ("__background__", *_OUTLINES)
"""Class names by label; 0 is the background."""


def _rasterize(outline: Outline, radius_px: float, angle: float, center_xy: Points) -> _Stamp:
    """Coverage of a rotated outline, by box filtering a supersampled polygon."""
    origin = np.floor(center_xy - radius_px * 1.15).astype(int)
    side = int(np.ceil(radius_px * 2.3)) + 2
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    fine = Image.new("L", (side * _SUPERSAMPLING,) * 2)
    draw = ImageDraw.Draw(fine)
    for points, fill in outline:
        xy = (points @ rotation * radius_px + center_xy - origin) * _SUPERSAMPLING - 0.5
        draw.polygon([(float(x), float(y)) for x, y in xy], fill=fill)
    coverage: Floats = np.asarray(fine.reduce(_SUPERSAMPLING), np.float32) / np.float32(255)
    return _Stamp(coverage, int(origin[0]), int(origin[1]))


def _random_stamp(name: str, hw: tuple[int, int], rng: np.random.Generator) -> _Stamp:
    low, high = np.log(_DIAMETER_RANGE)
    radius_px = float(np.exp(rng.uniform(low, high))) * min(hw) / 2
    center_xy = rng.uniform((0.0, 0.0), (hw[1], hw[0]))
    # Half of the hearts are upright, the others at any angle.
    upright = name == "heart" and rng.random() < 0.5
    angle = rng.normal(0, 0.25) if upright else rng.uniform(0, 2 * np.pi)
    return _rasterize(_OUTLINES[name](rng), radius_px, angle, center_xy)


def _overlap(stamp: _Stamp, hw: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices (rows, columns) of the image and of the stamp where the two overlap."""
    image, local = [], []
    for start, size, limit in zip(
        (stamp.top_px, stamp.left_px), stamp.coverage.shape, hw, strict=True
    ):
        low, high = max(start, 0), max(min(start + size, limit), 0)
        image.append(slice(low, max(low, high)))
        local.append(slice(low - start, max(low, high) - start))
    return (image[0], image[1]), (local[0], local[1])


def _full_mask(stamp: _Stamp, hw: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(hw, np.bool_)
    image, local = _overlap(stamp, hw)
    mask[image] = stamp.coverage[local] >= 0.5
    return mask


def _place(
    hw: tuple[int, int], count: int, rng: np.random.Generator
) -> tuple[list[_Stamp], NDArray[np.bool_], NDArray[np.int64]]:
    """Up to `count` shapes, each at least `_MIN_VISIBLE` visible after all are drawn."""
    stamps: list[_Stamp] = []
    labels: list[int] = []
    masks = np.zeros((0, *hw), np.bool_)
    needed: list[float] = []
    for _ in range(count * 6):
        label = int(rng.integers(1, len(NAMES)))
        stamp = _random_stamp(NAMES[label], hw, rng)
        mask = _full_mask(stamp, hw)
        area = _MIN_VISIBLE * float((stamp.coverage >= 0.5).sum())
        remaining = masks & ~mask
        visible = remaining.sum(axis=(1, 2))
        if mask.sum() < area or np.any(visible < needed):
            continue
        stamps.append(stamp)
        labels.append(label)
        needed.append(area)
        masks = np.concatenate([remaining, mask[None]])
        if len(stamps) == count:
            break
    return stamps, masks, np.array(labels, np.int64)


def _color(rng: np.random.Generator, saturation: Range, value: Range) -> Floats:
    hsv = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def _clip(values: Floats, low: float, high: float) -> Floats:
    clipped: Floats = np.clip(values, low, high)
    return clipped


def _wave(hw: tuple[int, int], period_px: float, rng: np.random.Generator) -> Floats:
    """A plane sine wave in a random direction, in [-1, 1]: float32 [H, W]."""
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[: hw[0], : hw[1]].astype(np.float32)
    along = np.cos(angle) * x + np.sin(angle) * y
    wave: Floats = np.sin(along * (2 * np.pi / period_px) + phase).astype(np.float32)
    return wave


def _blobs(hw: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Smooth noise, roughly in [-1, 1]: float32 [H, W]."""
    cells = int(rng.integers(3, 14))
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((hw[1], hw[0]), Image.Resampling.BICUBIC), np.float32)


def _texture(hw: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Blobs, stripes or checks in [-1, 1]: float32 [H, W]."""
    pattern, period_px = rng.integers(4), rng.uniform(0.05, 0.3) * min(hw)
    if pattern == 0:
        return _blobs(hw, rng)
    if pattern == 1:
        return _clip(_wave(hw, period_px, rng) * 6, -1, 1)
    if pattern == 2:
        return _clip(_wave(hw, period_px, rng) * _wave(hw, period_px, rng) * 9, -1, 1)
    return _clip(_wave(hw, period_px, rng) + _blobs(hw, rng), -1, 1)


def _background(hw: tuple[int, int], rng: np.random.Generator) -> Floats:
    """A muted gradient with a texture and grain: float32 [H, W, 3] in [0, 1]."""
    value = (0.12, 0.45) if rng.random() < 0.5 else (0.6, 0.95)
    first, second = (_color(rng, (0.05, 0.45), value) for _ in range(2))
    blend = (_wave(hw, 2.5 * max(hw), rng)[..., None] + 1) / 2
    contrast = rng.uniform(0.02, 0.09)
    tint = 0.7 + 0.3 * rng.random(3).astype(np.float32)
    image = first * blend + second * (1 - blend) + contrast * tint * _texture(hw, rng)[..., None]
    grain = rng.normal(0, rng.uniform(0.003, 0.03), (*hw, 1)).astype(np.float32)
    return _clip(image + grain, 0, 1)


def _fill(hw: tuple[int, int], rng: np.random.Generator) -> Floats:
    """A shape's paint: a vivid color, shaded, sometimes striped; float32 [h, w, 3]."""
    color = _color(rng, (0.55, 0.95), (0.6, 1.0))
    shade = 1 + 0.18 * _wave(hw, 2.2 * max(hw), rng)
    if rng.random() < 0.25:
        shade = shade * (1 + 0.12 * _clip(_wave(hw, 0.3 * max(hw) + 3, rng) * 5, -1, 1))
    return _clip(color * shade[..., None], 0, 1)


def _shadow(coverage: Floats) -> Floats:
    """The coverage, blurred and moved down and right by a few percent of its size."""
    offset = max(1, round(0.035 * coverage.shape[0]))
    blurred = Image.fromarray((coverage * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(offset)
    )
    return np.roll(np.asarray(blurred, np.float32) / 255, (offset, offset), axis=(0, 1))


def _paint(image: Floats, stamp: _Stamp, rng: np.random.Generator) -> None:
    """Composite one shape over `image` in place."""
    where, local = _overlap(stamp, (image.shape[0], image.shape[1]))
    fill = _fill((stamp.coverage.shape[0], stamp.coverage.shape[1]), rng)[local]
    alpha = stamp.coverage[local][..., None]
    under = image[where] * (1 - 0.4 * _shadow(stamp.coverage)[local][..., None])
    image[where] = under * (1 - alpha) + fill * alpha


def make_scene(seed: Sequence[int], hw: tuple[int, int], count: int) -> Scene:
    """Draw a scene.

    Args:
        seed: Entropy of the scene; equal seeds give equal scenes.
        hw: Height and width, pixels.
        count: Number of shapes, at least 1; a crowded picture may have fewer.

    Returns:
        The picture with the visible mask and the label (index in `NAMES`) of every shape, in
        drawing order. Shapes are at least 60 % visible; diameters are 6 % to 42 % of the short
        side.
    """
    rng = np.random.default_rng(list(seed))
    image = _background(hw, rng)
    stamps, masks, labels = _place(hw, count, rng)
    for stamp in stamps:
        _paint(image, stamp, rng)
    return Scene((image * 255 + 0.5).astype(np.uint8), masks, labels)
