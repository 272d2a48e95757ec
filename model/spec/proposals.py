"""Anchors and the region proposal network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from model.spec.checks import ADDED, counts, in_unit_interval, not_negative, positive, require

SizeClamp = Literal["upper", "both", "none"]
MAX_LOG_RATIO = math.log(1000.0 / 16)


@dataclass(frozen=True, slots=True)
class AnchorSpec:
    """Anchors per pyramid level.

    Attributes:
        sizes: per level, in canvas pixels.
        ratios: height / width, per level.
        order: the index that varies slower within a cell.
        rounded: whether coordinates are rounded to integers.
        offset: of the first cell's center, in strides.
        stride_rule: "canvas" divides the canvas by the level's grid (torchvision), "nominal" is
            the level's stride (detectron2).
        end_shift: added to x1 and y1; Matterport's boxes end a pixel earlier.
        cells: the anchors of a cell per level, xyxy around its center in canvas pixels; empty if
            they follow from `sizes` and `ratios`.
    """

    sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[tuple[float, ...], ...] = ((0.5, 1.0, 2.0),) * 5
    order: Literal["ratio-major", "size-major"] = "ratio-major"
    rounded: bool = True
    offset: float = 0.0
    stride_rule: Literal["canvas", "nominal"] = "canvas"
    end_shift: Literal[0, -1] = 0
    cells: tuple[tuple[tuple[float, float, float, float], ...], ...] = field(
        default=(), metadata=ADDED
    )

    def __post_init__(self) -> None:
        require(
            len(self.sizes) == len(self.ratios),
            f"anchors: expected one tuple of ratios per level, got {len(self.sizes)} levels of "
            f"sizes and {len(self.ratios)} of ratios",
        )
        require(
            not self.cells or len(self.cells) == len(self.sizes),
            f"anchors: expected the cells of {len(self.sizes)} levels, got {len(self.cells)}",
        )
        per_cell = {len(cell) for cell in self.cells} or {
            len(s) * len(r) for s, r in zip(self.sizes, self.ratios, strict=True)
        }
        require(
            len(per_cell) == 1 and per_cell.pop() > 0,
            "anchors: every level needs the same positive number of anchors per cell",
        )
        for sizes, ratios in zip(self.sizes, self.ratios, strict=True):
            positive("anchors", sizes=sizes, ratios=ratios)
        not_negative("anchors", offset=self.offset)

    @property
    def per_cell(self) -> int:
        """Anchors per grid cell, the same on every level."""
        return len(self.cells[0]) if self.cells else len(self.sizes[0]) * len(self.ratios[0])


@dataclass(frozen=True, slots=True)
class RpnSpec:
    """The region proposal network and its filters.

    Attributes:
        conv_widths: output channels of each 3x3 convolution; 0 keeps the number of inputs.
        pre_nms: number of best anchors that reach NMS, per `top_over`.
        post_nms: number of proposals of all levels.
        score_threshold: on sigmoid probabilities.
        size_clamp: bound on dw and dh of `max_log_ratio`, "upper" or on "both" sides.
        top_over: whether top-k and NMS run per level or over all levels.
        clip_to: the region that proposals are clipped to.
        module: class of the user's own head that the file contains; empty for the one above.
    """

    conv_widths: tuple[int, ...] = (0,)
    pre_nms: int = 1000
    post_nms: int = 1000
    nms_iou: float = 0.7
    min_size: float = 1e-3
    min_size_inclusive: bool = True
    score_threshold: float = 0.0
    box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    size_clamp: SizeClamp = "upper"
    top_over: Literal["level", "all"] = "level"
    clip_to: Literal["image", "canvas"] = "image"
    max_log_ratio: float = field(default=MAX_LOG_RATIO, metadata=ADDED)
    module: str = field(default="", metadata=ADDED)

    def __post_init__(self) -> None:
        require(
            len(self.conv_widths) >= 1 and all(w >= 0 for w in self.conv_widths),
            f"rpn: expected at least one of conv_widths, each 0 or more, got {self.conv_widths}",
        )
        counts("rpn", pre_nms=self.pre_nms, post_nms=self.post_nms)
        in_unit_interval("rpn", nms_iou=self.nms_iou, score_threshold=self.score_threshold)
        not_negative("rpn", min_size=self.min_size)
        positive("rpn", box_weights=self.box_weights, max_log_ratio=(self.max_log_ratio,))
