"""From a decoded photo to the canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from model.spec.checks import positive, require


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """Resize, channels, values, and the photo's position on the canvas.

    Attributes:
        short_side: target of the shorter side, unless the longer one would exceed `long_side`.
        long_side: limit of the longer side.
        resize_rule: order of operations and rounding. "torchvision": one scale, rounded down.
            "detectron2": short side, then the limit, halves up. "mmdetection": one scale, halves
            up. "matterport": one scale, at least 1 before the limit, halves to even.
        interpolation: "bilinear" in float without antialiasing; "pillow-bilinear",
            "opencv-bilinear" and "skimage-bilinear" round to uint8 as their libraries do.
        value_range: the largest value of the graph's input, 1 or 255.
        mean: per channel, in the graph's value range and channel order.
        std: likewise.
        size_divisor: the canvas's sides are multiples of it; 1: the canvas is the resized photo.
        square: whether the canvas is always `long_side` squared.
        placement: of the photo on the canvas; "centred" rounds towards the top left.
        padding: with zeros after normalization, or before it, which leaves -mean / std
            (Matterport).
    """

    short_side: int = 800
    long_side: int = 1333
    resize_rule: Literal["torchvision", "detectron2", "mmdetection", "matterport"] = "torchvision"
    interpolation: Literal["bilinear", "pillow-bilinear", "opencv-bilinear", "skimage-bilinear"] = (
        "bilinear"
    )
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_range: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size_divisor: int = 32
    square: bool = False
    placement: Literal["top-left", "centred"] = "top-left"
    padding: Literal["zero-after", "zero-before"] = "zero-after"

    def canvas_side(self, side: int) -> int:
        """The side in pixels, rounded up to a multiple of `size_divisor`."""
        return -(-side // self.size_divisor) * self.size_divisor

    def __post_init__(self) -> None:
        require(
            1 <= self.short_side <= self.long_side <= 16384,
            f"preprocess: expected 1 <= short_side <= long_side <= 16384, got short_side "
            f"{self.short_side} and long_side {self.long_side}; set --short-side and --long-side",
        )
        require(
            1 <= self.size_divisor <= 1024,
            f"preprocess: size_divisor must be from 1 to 1024, got {self.size_divisor}",
        )
        require(
            not self.square or self.long_side % self.size_divisor == 0,
            f"preprocess: a square canvas of {self.long_side} is no multiple of size_divisor "
            f"{self.size_divisor}; set --long-side",
        )
        positive("preprocess", std=self.std, value_range=(self.value_range,))
        require(
            all(map(math.isfinite, self.mean)), f"preprocess: mean must be finite, got {self.mean}"
        )
