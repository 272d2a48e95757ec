"""Boxes as deltas from a reference box, and the filters that every stage applies to boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_RATIO = math.log(1000.0 / 16)


def decode(deltas: Tensor, reference: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Apply regression deltas to reference boxes.

    Args:
        deltas: float32 [..., 4], dx dy dw dh.
        reference: float32 [..., 4] xyxy, pixels.
        weights: divisors of dx, dy, dw, dh.

    Returns:
        float32 [..., 4] xyxy, in the reference's frame, not clipped.

    Source: Fast R-CNN, appendix C of R-CNN; torchvision `BoxCoder.decode_single`, operation by
    operation, so that float32 results agree.
    """
    width = reference[..., 2] - reference[..., 0]
    height = reference[..., 3] - reference[..., 1]
    center_x = reference[..., 0] + 0.5 * width
    center_y = reference[..., 1] + 0.5 * height
    wx, wy, ww, wh = weights
    center_x = deltas[..., 0] / wx * width + center_x
    center_y = deltas[..., 1] / wy * height + center_y
    half_w = 0.5 * (torch.exp((deltas[..., 2] / ww).clamp(max=MAX_LOG_RATIO)) * width)
    half_h = 0.5 * (torch.exp((deltas[..., 3] / wh).clamp(max=MAX_LOG_RATIO)) * height)
    return torch.stack(
        [center_x - half_w, center_y - half_h, center_x + half_w, center_y + half_h], dim=-1
    )


def clip(boxes: Tensor, image_hw: Tensor) -> Tensor:
    """Clip float32 [N, ..., 4] xyxy boxes to each image's true size, float32 [N, 2]."""
    limits = image_hw[:, [1, 0, 1, 0]].reshape(-1, *([1] * (boxes.dim() - 2)), 4)
    return torch.minimum(boxes.clamp(min=0.0), limits)


def is_large_enough(boxes: Tensor, min_size: float, inclusive: bool) -> Tensor:
    """Bool [...] of the boxes whose two sides reach `min_size` pixels (exceed it if exclusive)."""
    width = boxes[..., 2] - boxes[..., 0]
    height = boxes[..., 3] - boxes[..., 1]
    if inclusive:
        return (width >= min_size) & (height >= min_size)
    return (width > min_size) & (height > min_size)
