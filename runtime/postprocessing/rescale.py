"""Boxes and keypoints from the canvas to the original image, as the eager models do it.

Module legend: D detections, J keypoints, S side of a heat map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from model.arrays import Float32
from runtime.postprocessing.keypoints import decode

if TYPE_CHECKING:
    from model.spec import KeypointHeadSpec


def boxes_to_image(
    boxes_xyxy: Float32,
    rule: Literal["scale", "clip", "round"],
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int],
) -> Float32:
    """Boxes in original-image pixels; one that overflows float32 becomes infinite or NaN.

    Args:
        boxes_xyxy: float32 [D, 4], canvas pixels.
        rule: `model.spec.BoxHeadSpec.to_image`; clipping comes later, because it would make an
            infinity finite.
        image_hw: Height and width of the original image.
        resized_hw: Height and width of the resized image on the canvas, without its padding.
        origin_yx: Its first row and column there.

    Returns:
        float32 [D, 4].
    """
    if rule == "round":
        return _rounded(boxes_xyxy, image_hw, resized_hw, origin_yx)
    return _scaled(boxes_xyxy, image_hw, resized_hw, origin_yx)


def keypoints_to_image(
    heatmaps: Float32,
    boxes_xyxy: Float32,
    head: KeypointHeadSpec,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
) -> Float32:
    """Decode on the canvas and scale; never clipped.

    Args:
        heatmaps: float32 [D, J, S, S] logits, finite.
        boxes_xyxy: float32 [D, 4], canvas pixels, finite.
        head: For the type of score.
        image_hw: Height and width of the original image.
        resized_hw: Height and width of the resized image on the canvas.

    Returns:
        float32 [D, J, 3], x, y and score, original-image pixels.
    """
    keypoints = decode(heatmaps, boxes_xyxy, head.score)
    ratio_hw = np.divide(image_hw, resized_hw, dtype=np.float32)
    keypoints[..., :2] *= ratio_hw[::-1]
    return keypoints


def _scaled(
    boxes_xyxy: Float32,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int],
) -> Float32:
    ratio_hw = np.divide(image_hw, resized_hw, dtype=np.float32)
    origin = np.array(origin_yx, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return (boxes_xyxy - origin[[1, 0, 1, 0]]) * ratio_hw[[1, 0, 1, 0]]


def _rounded(
    boxes_xyxy: Float32,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int],
) -> Float32:
    """Canvas boxes that end a pixel early to whole pixels of the image, halves to even.

    Corner pixels map to corner pixels, so sides are one less; the far edges regain their pixel.
    """
    axes = [1, 0, 1, 0]
    last, origin = np.subtract(image_hw, 1.0)[axes], np.array(origin_yx, np.float64)[axes]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        inside = (boxes_xyxy - origin) / np.subtract(resized_hw, 1.0)[axes]
        boxes: Float32 = np.around(inside * last + [0, 0, 1, 1]).astype(np.float32)
    return boxes
