"""From a decoded photo to the canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from model.spec.checks import positive, require


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """Resize, channels, values, and where the photo stands on its canvas.

    `mean` and `std` are in the graph's value range and channel order.

    Attributes:
        short_side: what the shorter side becomes, unless the longer one then exceeds its limit.
        long_side: that limit.
        resize_rule: whose order of operations and rounding. "torchvision": one scale, down.
            "detectron2": short side, then the limit, halves up. "mmdetection": one scale, halves
            up. "matterport": one scale that never shrinks to the short side, halves to even.
        interpolation: "bilinear" in float without antialiasing; "pillow-bilinear",
            "opencv-bilinear" and "skimage-bilinear" end in uint8, each in its library's way.
        size_divisor: the canvas's sides are multiples of it; 1: the canvas is the resized photo.
        square: the canvas is always `long_side` squared.
        placement: of the photo on its canvas; "centred" rounds towards the top left.
        padding: whether the canvas is filled with zeros "after" normalisation or "before" it, which
            leaves -mean / std there (Matterport).
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
