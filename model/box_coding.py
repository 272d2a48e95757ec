"""Boxes as deltas from a reference box, and the filters that every stage applies to boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.spec.proposals import SizeClamp

MAX_LOG_RATIO = math.log(1000.0 / 16)


def decode(
    deltas: Tensor,
    reference: Tensor,
    weights: tuple[float, float, float, float],
    size_clamp: SizeClamp,
) -> Tensor:
    """Apply regression deltas to reference boxes.

    Args:
        deltas: float32 [..., 4], dx dy dw dh.
        reference: float32 [..., 4] xyxy, pixels.
        weights: divisors of dx, dy, dw, dh.
        size_clamp: whether dw and dh are bounded, from above (torchvision, detectron2), on both
            sides (MMDetection) or not (Matterport).

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
    grow = _divide(grow, weights[2:])
    if size_clamp != "none":
        grow = grow.clamp(min=-MAX_LOG_RATIO if size_clamp == "both" else None, max=MAX_LOG_RATIO)
    half = 0.5 * (torch.exp(grow) * size)
    return torch.cat([center - half, center + half], dim=-1)


def _divide(deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Float32 [..., 2] by one weight per axis."""
    if weights[0] == weights[1]:
        return deltas if weights[0] == 1.0 else deltas / weights[0]
    return torch.cat([deltas[..., :1] / weights[0], deltas[..., 1:] / weights[1]], dim=-1)


def is_large_enough(boxes: Tensor, min_size: float, inclusive: bool) -> Tensor:
    """Bool [...] of the boxes whose two sides reach `min_size` pixels (exceed it if exclusive)."""
    shorter = (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1)
    return shorter >= min_size if inclusive else shorter > min_size
