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
    start, end = reference[..., :2], reference[..., 2:]
    size = end - start
    center = start + 0.5 * size
    move, grow = deltas[..., :2], deltas[..., 2:]
    center = _divide(move, weights[:2]) * size + center
    half = 0.5 * (torch.exp(_divide(grow, weights[2:]).clamp(max=MAX_LOG_RATIO)) * size)
    return torch.cat([center - half, center + half], dim=-1)


def _divide(deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Float32 [..., 2] by one weight per axis."""
    if weights[0] == weights[1]:
        return deltas if weights[0] == 1.0 else deltas / weights[0]
    return torch.cat([deltas[..., :1] / weights[0], deltas[..., 1:] / weights[1]], dim=-1)


def clip(boxes: Tensor, image_hw: Tensor) -> Tensor:
    """Clip float32 [N, ..., 4] xyxy boxes to each image's true size, float32 [N, 2]."""
    width_height = [image_hw[:, 1:], image_hw[:, :1]]
    limits = torch.cat(width_height * 2, dim=1).reshape(-1, *([1] * (boxes.dim() - 2)), 4)
    return torch.minimum(boxes.clamp(min=0.0), limits)


def is_large_enough(boxes: Tensor, min_size: float, inclusive: bool) -> Tensor:
    """Bool [...] of the boxes whose two sides reach `min_size` pixels (exceed it if exclusive)."""
    shorter = (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1)
    return shorter >= min_size if inclusive else shorter > min_size
