"""Bilinear samples in rows and columns, the same number in every RoI, reduced to one per bin.

Legend: R RoIs, C channels, P bins and S samples along an axis.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.pooling.arithmetic import TorchArithmetic
from model.pooling.frame import cells_per_pixel, in_cells
from model.pooling.plan import sample_plan
from model.pooling.steps import axis_steps, margins, step_count
from model.spec import PoolerSpec

_CHUNK_BYTES = 64 * 2**20


def pool_product_grid(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """See `model.pooling.pool`: RoIWarp, crop-and-resize, and RoIAlign's other reductions.

    The samples of `crop_and_resize` run from corner to corner of the RoI, a single one is at its
    center, and one outside the level is 0. `roi_warp` quantizes the RoI as RoIPool does
    (`model.pooling.frame`).

    Source: TensorFlow `tf.image.crop_and_resize`, "bilinear", extrapolation value 0; Instance-aware
    Semantic Segmentation via Multi-task Network Cascades, sec. 3.2.
    """
    xp = TorchArithmetic(rois.device)
    scale_y, scale_x = cells_per_pixel(spec, stride, (feature.shape[2], feature.shape[3]))
    scale = rois.new_tensor([scale_x, scale_y])
    start, sides = in_cells(xp, rois[:, 1:3], rois[:, 3:5], scale, spec)  # [R, 2] each
    steps = rois.new_tensor(axis_steps(spec))
    points = start[:, None] + sides[:, None] / step_count(spec) * steps[:, None]  # [R, S, 2]
    image, margin = rois[:, 0].long(), margins(spec)
    sample_bytes = feature.element_size() * feature.shape[1] * len(steps) ** 2
    at_once = max(_CHUNK_BYTES // sample_bytes, 1)
    chunks = zip(torch.split(image, at_once), torch.split(points, at_once), strict=True)
    return torch.cat([_reduce(_samples(feature, *chunk, margin), spec) for chunk in chunks])


def _reduce(samples: Tensor, spec: PoolerSpec) -> Tensor:
    plan = sample_plan(spec, 0, None)
    pool = functional.max_pool2d if plan.reduce == "max" else functional.avg_pool2d
    pooled: Tensor = pool(samples, plan.kernel_hw)
    return pooled


def _samples(
    feature: Tensor, image: Tensor, points_xy: Tensor, margin: tuple[float, float]
) -> Tensor:
    """Float32 [R, C, S, S] of one map [N, C, H, W]; 0 beyond the margin, else clamped."""
    above, below, weight_y, counts_y = _neighbors(points_xy[..., 1], feature.shape[2], margin)
    left, right, weight_x, counts_x = _neighbors(points_xy[..., 0], feature.shape[3], margin)
    rows, cells = image[:, None, None], feature.permute(0, 2, 3, 1)

    def at(y: Tensor, x: Tensor) -> Tensor:
        return cells[rows, y[:, :, None], x[:, None, :]]  # [R, S, S, C]

    weight_x, weight_y = weight_x[:, None, :, None], weight_y[:, :, None, None]
    top = at(above, left) * (1 - weight_x) + at(above, right) * weight_x
    bottom = at(below, left) * (1 - weight_x) + at(below, right) * weight_x
    counts = counts_y[:, :, None, None] & counts_x[:, None, :, None]
    samples = torch.where(counts, top * (1 - weight_y) + bottom * weight_y, 0.0)
    return samples.permute(0, 3, 1, 2)


def _neighbors(
    points: Tensor, side: int, margin: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cells before and after each point [R, S], the weight of the second, if it counts."""
    counts = (points >= -margin[0]) & (points <= side - 1 + margin[1])
    inside = torch.nan_to_num(points).clamp(0, side - 1)
    before = inside.floor().long()
    return before, (before + 1).clamp(max=side - 1), inside - before, counts
