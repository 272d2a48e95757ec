"""Bilinear samples in rows and columns, the same number in every RoI, then one value a bin.

Legend: R RoIs, C channels, P bins and S samples along an axis.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.pooling.arithmetic import TorchArithmetic
from model.pooling.frame import cells_per_pixel, in_cells
from model.pooling.steps import axis_steps, margins, step_count
from model.spec import PoolerSpec

_CHUNK_BYTES = 64 * 2**20


def pool_product_grid(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """See `model.pooling.pool`; where the samples stand and what counts 0 is the spec's."""
    xp = TorchArithmetic(rois.device)
    scale_y, scale_x = cells_per_pixel(spec, stride, (feature.shape[2], feature.shape[3]))
    scale = rois.new_tensor([scale_x, scale_y])
    start, sides = in_cells(xp, rois[:, 1:3], rois[:, 3:5], scale, spec)  # [R, 2] each
    steps = rois.new_tensor(axis_steps(spec))
    places = start[:, None] + sides[:, None] / step_count(spec) * steps[:, None]  # [R, S, 2]
    image, margin = rois[:, 0].long(), margins(spec)
    sample_bytes = feature.element_size() * feature.shape[1] * len(steps) ** 2
    at_once = max(_CHUNK_BYTES // sample_bytes, 1)
    pieces = zip(torch.split(image, at_once), torch.split(places, at_once), strict=True)
    pooled = [_reduced(_samples(feature, i, place, margin), spec) for i, place in pieces]
    return torch.cat(pooled)


def _reduced(samples: Tensor, spec: PoolerSpec) -> Tensor:
    is_max = spec.reduce == "max" or spec.kind == "crop_and_resize"
    pool = functional.max_pool2d if is_max else functional.avg_pool2d
    pooled: Tensor = pool(samples, spec.sampling_ratio)
    return pooled


def _samples(
    feature: Tensor, image: Tensor, places_xy: Tensor, margin: tuple[float, float]
) -> Tensor:
    """Float32 [R, C, S, S] of one map [N, C, H, W]; 0 beyond the margin, else clamped."""
    above, below, part_y, counts_y = _neighbours(places_xy[..., 1], feature.shape[2], margin)
    left, right, part_x, counts_x = _neighbours(places_xy[..., 0], feature.shape[3], margin)
    rows, cells = image[:, None, None], feature.permute(0, 2, 3, 1)

    def at(y: Tensor, x: Tensor) -> Tensor:
        return cells[rows, y[:, :, None], x[:, None, :]]  # [R, S, S, C]

    part_x, part_y = part_x[:, None, :, None], part_y[:, :, None, None]
    top = at(above, left) * (1 - part_x) + at(above, right) * part_x
    bottom = at(below, left) * (1 - part_x) + at(below, right) * part_x
    counts = counts_y[:, :, None, None] & counts_x[:, None, :, None]
    samples = torch.where(counts, top * (1 - part_y) + bottom * part_y, 0.0)
    return samples.permute(0, 3, 1, 2)


def _neighbours(
    places: Tensor, side: int, margin: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cells before and after each place [R, S], the part of the second, whether it counts."""
    counts = (places >= -margin[0]) & (places <= side - 1 + margin[1])
    inside = torch.nan_to_num(places).clamp(0, side - 1)
    before = inside.floor().long()
    return before, (before + 1).clamp(max=side - 1), inside - before, counts
