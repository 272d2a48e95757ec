"""From a decoded photo to the canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from model.spec.checks import ADDED, positive, require


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """Resize, channels, values, and the photo's position on the canvas.

    Attributes:
        short_side: target of the shorter side, unless the longer one would exceed `long_side`.
        long_side: limit of the longer side.
        resize_rule: order of operations and rounding. "torchvision": one scale, rounded down.
            "detectron2": short side, then the limit, halves up. "mmdetection": one scale, halves
            up. "matterport": one scale, at least 1 before the limit, halves to even. "mayaku": one
            scale, halves to even.
        interpolation: "bilinear" in float without antialiasing; "pillow-bilinear",
            "opencv-bilinear" and "skimage-bilinear" round to uint8 as their libraries do.
        value_range: the largest value of the graph's input, 1 or 255.
        mean: per channel, in the graph's value range and channel order; as many as the graph's
            input has channels.
        std: likewise.
        size_divisor: the canvas's sides are multiples of it; 1: the canvas is the resized photo.
        square: whether the canvas is always `long_side` squared.
        placement: of the photo on the canvas; "centred" rounds towards the top left.
        padding: with zeros after normalization, or before it, which leaves -mean / std
            (Matterport).
        fixed_hw: height and width to which every photo is resized, instead of by the rule.
    """

    short_side: int = 800
    long_side: int = 1333
    resize_rule: Literal["torchvision", "detectron2", "mmdetection", "matterport", "mayaku"] = (
        "torchvision"
    )
    interpolation: Literal["bilinear", "pillow-bilinear", "opencv-bilinear", "skimage-bilinear"] = (
        "bilinear"
    )
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_range: float = 1.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    size_divisor: int = 32
    square: bool = False
    placement: Literal["top-left", "centred"] = "top-left"
    padding: Literal["zero-after", "zero-before"] = "zero-after"
    fixed_hw: tuple[int, int] | None = field(default=None, metadata=ADDED)

    @property
    def channels(self) -> int:
        """Channels of the graph's input."""
        return len(self.mean)

    @property
    def fixed_canvas_hw(self) -> tuple[int, int] | None:
        """The canvas of every photo, if its size is the same for all."""
        if self.fixed_hw is not None:
            return self.canvas_side(self.fixed_hw[0]), self.canvas_side(self.fixed_hw[1])
        return (self.long_side, self.long_side) if self.square else None

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
        require(
            1 <= len(self.mean) == len(self.std),
            f"preprocess: expected a mean and a std for every channel, got {len(self.mean)} of "
            f"mean and {len(self.std)} of std",
        )
        require(
            self.channel_order == "rgb" or len(self.mean) == 3,
            f"preprocess: channel_order 'bgr' needs 3 channels, got {len(self.mean)}",
        )
        require(
            self.fixed_hw is None or all(1 <= side <= 16384 for side in self.fixed_hw),
            f"preprocess: fixed_hw must be from 1 to 16384, got {self.fixed_hw}",
        )
        positive("preprocess", std=self.std, value_range=(self.value_range,))
        require(
            all(map(math.isfinite, self.mean)), f"preprocess: mean must be finite, got {self.mean}"
        )
