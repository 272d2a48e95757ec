"""Detections drawn on an image: translucent masks with contours, boxes, keypoints and labels."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.arrays import Bool, Float32, UInt8
from runtime.drawing.source_image import source_pixels

if TYPE_CHECKING:
    from runtime.detections import Detections
    from runtime.masks.paste import MaskCrop

Color = tuple[int, int, int]
Rect = tuple[float, float, float, float]

# Steps of the golden ratio around the color circle stay far apart, however many there are.
_GOLDEN = 0.61803398875
_MASK_OPACITY = 0.45
_SHADES = ((0.78, 1.0), (0.55, 1.0), (0.85, 0.78), (0.45, 0.85))
# By name, so that models with other keypoints, or another order, get the limbs that they have.
LIMBS = (
    ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "right_eye"),
    ("left_eye", "left_ear"), ("right_eye", "right_ear"),
    ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
    ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"),
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
    ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
)  # fmt: skip
_FAR_PX = 1e6


@dataclass(frozen=True, slots=True)
class _Style:
    """Line and font sizes that fit the image."""

    line_px: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    pad_px: int

    @classmethod
    def of(cls, image_hw: tuple[int, int]) -> _Style:
        short = min(image_hw)
        size = max(11, round(short / 42))
        return cls(max(1, round(short / 360)), ImageFont.load_default(size), max(2, size // 4))


def draw(image: Image.Image | UInt8, detections: Detections) -> Image.Image:
    """Draw every detection, the best score on top, on a copy of the image.

    Args:
        image: The original image, see `runtime.drawing.source_image`.
        detections: Of this image.

    Returns:
        An RGB image, upright.

    Raises:
        ImageError: The image has another size than the detections.
    """
    pixels = source_pixels("draw", image, detections).copy()
    colors = instance_colors(detections.labels.tolist())
    style = _Style.of(detections.image_hw)
    order = np.argsort(detections.scores, kind="stable").tolist()
    crops = detections.crops()
    for row in order if crops else ():
        _paint_mask(pixels, crops[row], colors[row], style.line_px)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for row in order:
        _paint_box(pen, detections.boxes[row].tolist(), colors[row], style.line_px)
        if detections.keypoints is not None:
            points = detections.keypoints[row, :, :2]
            paint_keypoints(pen, points, detections.keypoint_names, colors[row], style.line_px)
    _paint_labels(pen, detections, colors, style, order[::-1])
    return picture


def instance_colors(labels: list[int]) -> list[Color]:
    """One RGB color per detection: hue by class, shade by instance."""
    instances: Counter[int] = Counter()
    colors = []
    for label in labels:
        colors.append(_color(label, instances[label]))
        instances[label] += 1
    return colors


def _color(label: int, instance: int) -> Color:
    saturation, value = _SHADES[instance % len(_SHADES)]
    hue = (label * _GOLDEN + instance % 3 * 0.03) % 1.0
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _paint_mask(pixels: UInt8, crop: MaskCrop, color: Color, line_px: int) -> None:
    mask = crop.rows
    height, width = mask.shape
    part = pixels[crop.y0_px : crop.y0_px + height, crop.x0_px : crop.x0_px + width]
    tint = np.array(color, np.float32) * _MASK_OPACITY
    part[mask] = (part[mask] * np.float32(1 - _MASK_OPACITY) + tint).astype(np.uint8)
    part[mask & ~_eroded(mask, line_px)] = color


def _eroded(mask: Bool, times: int) -> Bool:
    """`mask` [h, w] without the pixels within `times` steps of its outside."""
    inner = np.pad(mask, 1)
    for _ in range(times):
        core = inner[1:-1, 1:-1].copy()
        core &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        inner[1:-1, 1:-1] = core
    return inner[1:-1, 1:-1]


def _paint_box(pen: ImageDraw.ImageDraw, box_xyxy: list[float], color: Color, line_px: int) -> None:
    width, height = pen.im.size
    x0, y0, x1, y1 = box_xyxy
    corners = (max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1))
    if corners[0] <= corners[2] and corners[1] <= corners[3]:
        pen.rectangle(corners, outline=color, width=line_px)


def _paint_labels(
    pen: ImageDraw.ImageDraw,
    detections: Detections,
    colors: list[Color],
    style: _Style,
    order: list[int],
) -> None:
    """Label the rows in `order`; the later of two that would overlap moves."""
    taken: list[Rect] = []
    for row in order:
        # One line, whatever white space the class name contains.
        text = " ".join(f"{detections.names[row]} {detections.scores[row]:.2f}".split())
        box = detections.boxes[row].tolist()
        rect = _label_rect(pen, text, box, style, taken)
        taken.append(rect)
        pen.rounded_rectangle(rect, radius=style.pad_px, fill=colors[row])
        anchor = (rect[0] + style.pad_px, (rect[1] + rect[3]) / 2)
        pen.text(anchor, text, fill=_readable_on(colors[row]), font=style.font, anchor="lm")


def _label_rect(
    pen: ImageDraw.ImageDraw, text: str, box_xyxy: list[float], style: _Style, taken: list[Rect]
) -> Rect:
    """Above the box, else inside its top, inside its bottom or below it; always in the image."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=style.font)
    width, height = right - left + 2 * style.pad_px, bottom - top + 2 * style.pad_px
    image_width, image_height = pen.im.size
    x0, y0, _, y1 = box_xyxy
    x = min(max(x0, 0), max(image_width - 1 - width, 0))
    candidates: list[Rect] = []
    for y in (y0 - height, y0, y1 - height, y1):
        inside = min(max(y, 0), max(image_height - 1 - height, 0))
        candidates.append((x, inside, x + width, inside + height))
    free = (c for c in candidates if not any(_overlap(c, other) for other in taken))
    return next(free, candidates[0])


def _overlap(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _readable_on(color: Color) -> str:
    red, green, blue = color
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def paint_keypoints(
    pen: ImageDraw.ImageDraw,
    points_xy: Float32,
    names: Sequence[str],
    color: tuple[int, int, int],
    line_px: int,
) -> None:
    """Paint one detection's keypoints.

    Args:
        pen: of the image.
        points_xy: float32 [J, 2], original-image pixels; they may lie outside.
        names: of the J keypoints.
        color: RGB, of lines and dots; dots have a white rim.
        line_px: width of a line.
    """
    # Pillow converts to C integers.
    points = points_xy.clip(-_FAR_PX, _FAR_PX).tolist()
    position = dict(zip(names, points, strict=True))
    for start, end in LIMBS:
        if start in position and end in position:
            pen.line((*position[start], *position[end]), fill=color, width=line_px)
    radius = line_px + 1
    for x, y in points:
        dot = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(dot, fill=color, outline="white")
