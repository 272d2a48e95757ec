"""Anchors of one pyramid level."""

from __future__ import annotations

import torch
from torch import Tensor

from model.spec import AnchorSpec


def cell_anchors(spec: AnchorSpec, level: int) -> Tensor:
    """Anchors of one cell, centered on the origin.

    Returns:
        float32 [A, 4] xyxy, canvas pixels; ratio is height / width.

    Source: Faster R-CNN, sec. 3.1.1; torchvision `AnchorGenerator.generate_anchors` (rounded),
    detectron2 `DefaultAnchorGenerator` (not rounded).
    """
    sizes = torch.tensor(spec.sizes[level], dtype=torch.float32)
    height_ratio = torch.sqrt(torch.tensor(spec.ratios[level], dtype=torch.float32))
    width_ratio = 1 / height_ratio
    if spec.order == "ratio-major":
        widths, heights = width_ratio[:, None] * sizes, height_ratio[:, None] * sizes
    else:
        widths, heights = sizes[:, None] * width_ratio, sizes[:, None] * height_ratio
    widths, heights = widths.reshape(-1), heights.reshape(-1)
    anchors = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    anchors = anchors.round() if spec.rounded else anchors
    return anchors + torch.tensor([0, 0, spec.end_shift, spec.end_shift])


def grid_anchors(
    cell: Tensor, grid_hw: tuple[int, int], stride_yx: tuple[int, int], offset: float
) -> Tensor:
    """Repeat a cell's anchors over a level's grid.

    Args:
        cell: float32 [A, 4].
        grid_hw: rows and columns of the level, possibly symbolic.
        stride_yx: canvas pixels per row and column, possibly symbolic.
        offset: center of the first cell, in strides.

    Returns:
        float32 [H * W * A, 4] xyxy, canvas pixels, cell by cell in row order.
    """
    y = torch.arange(grid_hw[0], device=cell.device).to(cell.dtype)
    x = torch.arange(grid_hw[1], device=cell.device).to(cell.dtype)
    y, x = (y + offset) * stride_yx[0], (x + offset) * stride_yx[1]
    zero = torch.zeros_like(y)[:, None] + torch.zeros_like(x)[None, :]  # [H, W]
    shift_y, shift_x = zero + y[:, None], zero + x[None, :]
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)  # [H, W, 4]
    return (shifts[:, :, None, :] + cell).reshape(-1, 4)
