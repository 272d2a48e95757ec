"""Boxes as deltas from a reference box, and the size filter of every stage."""

from __future__ import annotations

import torch
from torch import Tensor

from model.spec.proposals import MAX_LOG_RATIO, SizeClamp


def decode(
    deltas: Tensor,
    reference: Tensor,
    weights: tuple[float, float, float, float],
    size_clamp: SizeClamp,
    max_log_ratio: float = MAX_LOG_RATIO,
) -> Tensor:
    """Apply regression deltas to reference boxes.

    Args:
        deltas: float32 [..., 4], dx dy dw dh.
        reference: float32 [..., 4] xyxy, pixels.
        weights: divisors of dx, dy, dw, dh.
        size_clamp: bound on dw and dh: "upper" (torchvision, detectron2), "both" (MMDetection) or
            "none" (Matterport).
        max_log_ratio: that bound.

    Returns:
        float32 [..., 4] xyxy, in the reference's frame, not clipped.

    Source: R-CNN, appendix C; torchvision `BoxCoder.decode_single`, operation by operation, so
    that float32 results agree.
    """
    start, end = reference[..., :2], reference[..., 2:]
    size = end - start
    center = start + 0.5 * size
    center = _divide(deltas[..., :2], weights[:2]) * size + center
    log_ratio = _divide(deltas[..., 2:], weights[2:])
    if size_clamp != "none":
        lowest = -max_log_ratio if size_clamp == "both" else None
        log_ratio = log_ratio.clamp(min=lowest, max=max_log_ratio)
    half = 0.5 * (torch.exp(log_ratio) * size)
    return torch.cat([center - half, center + half], dim=-1)


def _divide(deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Float32 [..., 2] by one weight per axis."""
    if weights[0] == weights[1]:
        return deltas if weights[0] == 1.0 else deltas / weights[0]
    return torch.cat([deltas[..., :1] / weights[0], deltas[..., 1:] / weights[1]], dim=-1)


def is_large_enough(boxes: Tensor, min_size: float, inclusive: bool) -> Tensor:
    """Bool [...]: both sides are at least `min_size` pixels, or above it if not `inclusive`."""
    shorter = (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1)
    return shorter >= min_size if inclusive else shorter > min_size
