"""`pyramid_pool` with static shapes, in PyTorch: one sampling of a canvas that holds all levels.

Legend: N images, R RoIs per image, C channels, P pooled side, S samples of a RoI.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model.native.level_rule import level_areas
from model.native.options import NativeOptions
from model.pooling.arithmetic import TorchArithmetic
from model.pooling.packing import pack
from model.pooling.plan import SamplePlan, sample_budget, sample_plan
from model.pooling.sample_grid import SampleGrid, level_rows, sample_grid
from model.spec import PoolerSpec

_Sides = tuple[tuple[int, int], ...]


def pool_static(
    features: Sequence[Tensor],
    rois: Tensor,
    valid: Tensor,
    spec: PoolerSpec,
    options: NativeOptions,
) -> tuple[Tensor, Tensor]:
    """See `model.ops.pyramid_pool`."""
    areas = _areas(spec)
    used = list(features[: len(areas) + 1])
    sides_hw = tuple((f.shape[2], f.shape[3]) for f in used)
    budget = _budget(spec, sides_hw, options.max_sampling)
    plan = sample_plan(spec, budget, options.max_sampling)
    canvas = _assemble(used)
    xp = TorchArithmetic(rois.device)
    row = functional.embedding(_level(rois, areas), xp.numbers(_level_rows(sides_hw, spec)))
    samples = sample_grid(xp, rois, valid, row[:, :, None], spec, plan)
    sample_bytes = 4 * rois.shape[0] * canvas.shape[1] * plan.samples
    rois_at_once = max(options.chunk_bytes // sample_bytes, 1)
    chunks = [
        _sample(canvas, grid, weight, plan)
        for grid, weight in zip(*_split(samples, rois_at_once), strict=True)
    ]
    pooled = torch.cat(chunks, dim=1)  # [N, R, C, P * P]
    if samples.factor is not None:
        pooled = pooled * samples.factor.to(pooled.dtype)
    cut = rois.new_zeros(rois.shape[0], dtype=torch.int32)
    if samples.cut is not None:
        cut = samples.cut.sum(dim=(1, 2, 3)).to(torch.int32)
    return pooled.reshape(-1, canvas.shape[1], spec.output_size, spec.output_size), cut


def _split(
    samples: SampleGrid, rois_at_once: int
) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
    grids = torch.split(samples.grid, rois_at_once, dim=1)
    if samples.weight is None:
        return grids, [None] * len(grids)
    return grids, torch.split(samples.weight, rois_at_once, dim=1)


# Plain numbers that depend only on the spec and the canvas; a compiler need not trace them.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _areas(spec: PoolerSpec) -> tuple[float, ...]:
    return level_areas(spec)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _budget(spec: PoolerSpec, sides_hw: _Sides, max_sampling: int | None) -> int:
    return sample_budget(spec, sides_hw, level_areas(spec), max_sampling)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _layout(sides_hw: _Sides) -> list[int]:
    """Height and width of the canvas, then row and column of each level."""
    packing = pack(sides_hw)
    return [*packing.canvas_hw, *(side for origin in packing.origins_yx for side in origin)]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _level_rows(sides_hw: _Sides, spec: PoolerSpec) -> list[list[float]]:
    rows: list[list[float]] = level_rows(pack(sides_hw), spec).tolist()
    return rows


def _level(rois: Tensor, areas: Sequence[float]) -> Tensor:
    """Int64 [N, R]."""
    area = (rois[..., 2] - rois[..., 0]) * (rois[..., 3] - rois[..., 1])
    level = torch.zeros_like(area, dtype=torch.int64)
    for start in areas:
        level = level + (area >= start)
    return level


def _assemble(features: Sequence[Tensor]) -> Tensor:
    """All levels on one [N, C, H, W] canvas, zero between them."""
    sides_hw = tuple((f.shape[2], f.shape[3]) for f in features)
    height, width, *origins = _layout(sides_hw)
    canvas = features[0].new_zeros(*features[0].shape[:2], height, width)
    for level, feature in enumerate(features):
        top, left = origins[2 * level : 2 * level + 2]
        canvas[:, :, top : top + feature.shape[2], left : left + feature.shape[3]] = feature
    return canvas


def _sample(canvas: Tensor, grid: Tensor, weight: Tensor | None, plan: SamplePlan) -> Tensor:
    """Float [N, R', C, P * P]."""
    count, rois = grid.shape[:2]
    flat = grid.reshape(count, rois * plan.rows, plan.columns, 2)
    sampled = functional.grid_sample(
        canvas.to(grid.dtype),
        flat,
        mode="nearest" if plan.nearest else "bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    if weight is not None:
        sampled = sampled * weight.reshape(count, 1, rois * plan.rows, plan.columns)
    pooled = _reduce(sampled, plan).to(canvas.dtype)
    return pooled.reshape(count, canvas.shape[1], rois, -1).transpose(1, 2)


def _reduce(sampled: Tensor, plan: SamplePlan) -> Tensor:
    if plan.reduce == "sum":
        return sampled.sum(dim=3)
    if plan.budget:
        return sampled.amax(dim=3)
    pool = functional.max_pool2d if plan.reduce == "max" else functional.avg_pool2d
    pooled: Tensor = pool(sampled, plan.kernel_hw)
    return pooled
