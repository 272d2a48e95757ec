"""From decoded photos to the network's input canvas, as the eager model does it.

Legend: h, w sides of a photo; H, W sides of the canvas, all in pixels.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.arrays import Float32, UInt8
from model.errors import ImageError
from runtime.preprocessing import opencv_bilinear, skimage_bilinear
from runtime.preprocessing.torch_bilinear import resize_into
from runtime.sources.pixel_format import Scaled, to_bytes

if TYPE_CHECKING:
    from model.spec import PreprocessSpec


@dataclass(frozen=True, slots=True)
class Canvas:
    """The graph's inputs for a batch.

    Attributes:
        images: float32 [N, C, H, W] in the spec's channel order and value range, zero in the
            padding.
        image_hw: float32 [N, 2], each photo's size on the canvas.
        origin_yx: each photo's first row and column on the canvas.
    """

    images: Float32
    image_hw: Float32
    origin_yx: tuple[tuple[int, int], ...]


def resized_hw(
    photo_hw: tuple[int, int], spec: PreprocessSpec, canvas_hw: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Size of a photo after the resize rule, limited by a fixed canvas.

    Raises:
        ImageError: less than one pixel is left; the eager model fails on it as well.

    Source: torchvision `_resize_image_and_masks` (floor); detectron2 `ResizeShortestEdge`
    (round); mmcv `rescale_size` (round); Matterport `resize_image` (round).
    """
    height, width = photo_hw
    if height < 1 or width < 1:
        raise ImageError(f"the image is {height}x{width}; expected at least one pixel a side")
    if spec.fixed_hw is not None:
        return spec.fixed_hw
    if spec.resize_rule == "torchvision":
        scale = _one_scale(height, width, spec, canvas_hw)
        sides = math.floor(height * scale), math.floor(width * scale)
    elif spec.resize_rule == "mmdetection":
        scale = _one_scale(height, width, spec, canvas_hw)
        sides = int(height * scale + 0.5), int(width * scale + 0.5)
    elif spec.resize_rule == "mayaku":
        scale = _one_scale(height, width, spec, canvas_hw)
        sides = round(height * scale), round(width * scale)
    elif spec.resize_rule == "matterport":
        sides = _even_sides(height, width, spec, canvas_hw)
    else:
        sides = _rounded_sides(height, width, spec, canvas_hw)
    if canvas_hw is not None:
        sides = min(sides[0], canvas_hw[0]), min(sides[1], canvas_hw[1])
    if min(sides) < 1:
        raise ImageError(
            f"a photo of {height}x{width} becomes {sides[0]}x{sides[1]} by the resize rule, and "
            "the eager model fails on it too; crop it"
        )
    return sides


def _one_scale(
    height: int, width: int, spec: PreprocessSpec, canvas_hw: tuple[int, int] | None
) -> float:
    """One scale for both limits (torchvision, MMDetection, mayaku)."""
    scale = min(spec.long_side / max(height, width), spec.short_side / min(height, width))
    if canvas_hw is not None:
        scale = min(scale, canvas_hw[0] / height, canvas_hw[1] / width)
    return scale


def _rounded_sides(
    height: int, width: int, spec: PreprocessSpec, canvas_hw: tuple[int, int] | None
) -> tuple[int, int]:
    """The short side first, then the long side's limit, then halves up (detectron2).

    The order of operations is detectron2's: another one rounds some sides differently.
    """
    scale = float(spec.short_side) / min(height, width)
    short = float(spec.short_side)
    new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
    longest = max(new_height, new_width)
    if longest > spec.long_side:
        scale = float(spec.long_side) / longest
        new_height, new_width = new_height * scale, new_width * scale
    if canvas_hw is not None:
        scale = min(1.0, canvas_hw[0] / new_height, canvas_hw[1] / new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return int(new_height + 0.5), int(new_width + 0.5)


def _even_sides(
    height: int, width: int, spec: PreprocessSpec, canvas_hw: tuple[int, int] | None
) -> tuple[int, int]:
    """One scale, up to the short side but down to the long one only, halves to even.

    The order of operations is Matterport's: another one rounds some sides differently.
    """
    scale = max(1.0, spec.short_side / min(height, width))
    longest = max(height, width)
    if round(longest * scale) > spec.long_side:
        scale = spec.long_side / longest
    if canvas_hw is not None and (
        round(height * scale) > canvas_hw[0] or round(width * scale) > canvas_hw[1]
    ):
        scale = min(canvas_hw[0] / height, canvas_hw[1] / width)
    return round(height * scale), round(width * scale)


def origin_yx(
    image_hw: tuple[int, int], canvas_hw: tuple[int, int], spec: PreprocessSpec
) -> tuple[int, int]:
    """First row and column of a photo on its canvas; the graph uses the same rule.

    Source: Matterport `resize_image` (the odd pixel of padding goes to the end).
    """
    if spec.placement == "top-left":
        return 0, 0
    return (canvas_hw[0] - image_hw[0]) // 2, (canvas_hw[1] - image_hw[1]) // 2


def to_canvas(
    photos: Sequence[Scaled],
    spec: PreprocessSpec,
    canvas_hw: tuple[int, int] | None = None,
    batch: int | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    pool: CanvasPool | None = None,
) -> Canvas:
    """Resize photos, place them on canvases of one size, and pad.

    Args:
        photos: uint8 [h, w, C] each, RGB if C is 3; or float32 on the same scale, from 0 to 255.
        spec: the resize rule and the graph's value range.
        canvas_hw: a fixed canvas; None takes the spec's square, or the smallest that holds all
            photos, rounded up to the spec's divisor, as the eager model does.
        batch: rows of the batch if it is fixed; rows without a photo are blank.
        sizes: sizes after the resize; None computes them from the photos. They differ for photos
            that were decoded at less than their full size.
        pool: source of the canvas's memory; None allocates.

    Raises:
        ImageError: the resize rule shrinks a photo to nothing.
    """
    if sizes is None:
        sizes = [resized_hw(p.shape[:2], spec, canvas_hw) for p in photos]
    if canvas_hw is None:
        canvas_hw = shared_canvas_hw(sizes, spec)
    origins = tuple(origin_yx(size, canvas_hw, spec) for size in sizes)
    count = len(photos) if batch is None else batch
    shape = (count, spec.channels, *canvas_hw)
    images = np.empty(shape, np.float32) if pool is None else pool.take(shape)
    image_hw = np.tile(np.array([canvas_hw], np.float32), (count, 1))
    for row, (photo, (height, width)) in enumerate(zip(photos, sizes, strict=True)):
        y, x = origins[row]
        planes = images[row]
        planes[:, :y] = planes[:, y + height :] = 0
        planes[:, y : y + height, :x] = planes[:, y : y + height, x + width :] = 0
        _resize_into(planes[:, y : y + height, x : x + width], photo, spec)
        image_hw[row] = height, width
    images[len(photos) :] = 0
    return Canvas(images, image_hw, origins)


class CanvasPool:
    """Used canvases whose memory the next photos can have; thread-safe.

    Args:
        size: most canvases that are kept; the ones returned last stay.
    """

    def __init__(self, size: int = 4) -> None:
        self._free: deque[Float32] = deque(maxlen=size)
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> Float32:
        """A canvas of that shape, not cleared."""
        with self._lock:
            for index, canvas in enumerate(self._free):
                if canvas.shape == shape:
                    del self._free[index]
                    return canvas
        return np.empty(shape, np.float32)

    def give_back(self, canvas: Float32) -> None:
        """Return a canvas that nothing reads any more."""
        with self._lock:
            self._free.append(canvas)


def shared_canvas_hw(sizes: Sequence[tuple[int, int]], spec: PreprocessSpec) -> tuple[int, int]:
    """Height and width of the canvas of resized photos that share a batch."""
    if spec.square:
        return spec.long_side, spec.long_side
    tallest, widest = (max(size[axis] for size in sizes) for axis in (0, 1))
    return spec.canvas_side(tallest), spec.canvas_side(widest)


def resize(photo: Scaled, hw: tuple[int, int], spec: PreprocessSpec) -> Float32:
    """Resize uint8 [h, w, C], RGB if C is 3, to float32 [C, H, W] in the graph's channels."""
    planes = np.empty((spec.channels, *hw), np.float32)
    _resize_into(planes, photo, spec)
    return planes


def _resize_into(planes: Float32, photo: Scaled, spec: PreprocessSpec) -> None:
    """Fill float32 [C, H, W]."""
    scale = np.float32(spec.value_range / 255.0)
    if spec.interpolation == "bilinear":
        channels = (2, 1, 0) if spec.channel_order == "bgr" else tuple(range(spec.channels))
        resize_into(planes, photo, channels, float(scale))
        return
    # The other libraries resize bytes.
    pixels = to_bytes(photo)
    if spec.channel_order == "bgr":
        pixels = pixels[:, :, ::-1]
    hw = planes.shape[1:]
    if spec.interpolation == "pillow-bilinear":
        # Pillow resizes each channel by itself, and has modes for some numbers of them only.
        parts = [pixels] if spec.channels == 3 else np.split(pixels, spec.channels, axis=2)
        for target, part in zip(np.split(planes, len(parts)), parts, strict=True):
            resized = _by_pillow(part, (hw[0], hw[1]))
            np.multiply(resized.transpose(2, 0, 1), scale, out=target, dtype=np.float32)
    elif spec.interpolation == "opencv-bilinear":
        integers = opencv_bilinear.resize_uint8(pixels, (hw[0], hw[1]))
        np.multiply(integers.transpose(2, 0, 1), scale, out=planes, dtype=np.float32)
    else:
        integers = skimage_bilinear.resize_uint8(pixels, (hw[0], hw[1]))
        np.multiply(integers, scale, out=planes, dtype=np.float32)


def _by_pillow(pixels: UInt8, hw: tuple[int, int]) -> UInt8:
    """Resize uint8 [h, w, 3] or [h, w, 1]."""
    from PIL import Image

    plain = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    image = Image.fromarray(np.ascontiguousarray(plain))
    resized = np.asarray(image.resize((hw[1], hw[0]), Image.Resampling.BILINEAR))
    return resized.reshape(*hw, -1)
