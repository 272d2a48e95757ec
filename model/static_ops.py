"""The two operators with static shapes, in PyTorch: what `torch.compile` and CUDA graphs take.

The eager bodies look at their data to choose rows, which a CUDA graph cannot record. These compute
what the `native` lowering writes: one sampling of a canvas that holds all levels, and NMS as a
fixed-point iteration. docs/tensorrt.md explains both.

Legend: N images, R RoIs per image, C channels, P pooled side, s samples per bin side, S = P * s,
B NMS problems, K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from model.float32 import largest_float32_not_above
from model.level_rule import level_areas
from model.native_options import NativeOptions
from model.packing import pack
from model.spec import PoolerSpec

# Beyond [-1, 1] by more than a cell of any canvas: zero padding answers 0 there.
_NOWHERE = 4.0


@dataclass(frozen=True, slots=True)
class StaticOperators:
    """Implements `model.ops.Operators`."""

    options: NativeOptions = field(default_factory=NativeOptions)

    def pyramid_pool(
        self, features: Sequence[Tensor], rois: Tensor, valid: Tensor, spec: PoolerSpec
    ) -> tuple[Tensor, Tensor]:
        """See `model.ops.pyramid_pool`; the sampling ratio must not be adaptive."""
        areas = _areas(spec)
        used = list(features[: len(areas) + 1])
        sides_hw = tuple((f.shape[2], f.shape[3]) for f in used)
        canvas = _assemble(used)
        table = _level_table(sides_hw, spec, rois.device)  # [L, 8]
        grid = _grid(rois, valid, areas, table, spec)  # [N, R, S * S, 2]
        sample_bytes = 4 * rois.shape[0] * canvas.shape[1] * grid.shape[2]
        pieces = torch.split(grid, max(self.options.chunk_bytes // sample_bytes, 1), dim=1)
        pooled = torch.cat([_sample(canvas, piece, spec) for piece in pieces], dim=1)
        return pooled.flatten(0, 1), rois.new_zeros(rois.shape[0], dtype=torch.int32)

    def nms_keep(
        self,
        boxes: Tensor,
        valid: Tensor,
        groups: Tensor,
        num_groups: int,
        iou: float,
        stage: str,
    ) -> tuple[Tensor, Tensor]:
        """See `model.ops.nms_keep`."""
        rounds, total = self.options.rounds(stage), boxes.shape[1]
        size = self.options.block_size(total)
        kept: list[Tensor] = []
        undecided: list[Tensor] = []
        pieces = [slice(start, start + size) for start in range(0, total, size)]
        for place, rows in enumerate(pieces):
            candidates = valid[:, rows, None].half()
            group = groups if num_groups > 1 else None
            for earlier, keep in zip(pieces[:place], kept, strict=True):
                matrix = _removals(boxes, group, rows, earlier, iou)
                candidates = functional.relu(candidates - matrix @ keep)
            own = _removals(boxes, group, rows, rows, iou).tril(-1)
            before = keep = candidates
            for _ in range(rounds):
                before, keep = keep, functional.relu(candidates - own @ keep)
            kept.append(keep)
            changed = (keep != before).sum(dim=(1, 2))
            if undecided:  # what builds on a block that is open is open as a whole
                changed = torch.where(undecided[-1] > 0, keep.shape[1], changed)
            undecided.append(changed)
        together = torch.cat(kept, dim=1)[:, :, 0] > 0
        return together, torch.stack(undecided).sum(dim=0).to(torch.int32)


# Plain numbers, which depend on the spec and the canvas alone: a compiler need not look inside.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _areas(spec: PoolerSpec) -> list[float]:
    return level_areas(spec)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _places(sides_hw: tuple[tuple[int, int], ...]) -> list[int]:
    """Height and width of the canvas, then row and column of each level."""
    packing = pack(sides_hw)
    return [*packing.canvas_hw, *(side for origin in packing.origins_yx for side in origin)]


def _level_table(
    sides_hw: tuple[tuple[int, int], ...], spec: PoolerSpec, device: torch.device
) -> Tensor:
    if torch.compiler.is_compiling():  # a compiler keeps constants itself
        return torch.tensor(_level_rows(sides_hw, spec), device=device)
    return _kept_table(sides_hw, spec, device)


# A CUDA graph cannot record a copy from the host; the rehearsal before it makes the copy.
@cache
def _kept_table(
    sides_hw: tuple[tuple[int, int], ...], spec: PoolerSpec, device: torch.device
) -> Tensor:
    return torch.tensor(_level_rows(sides_hw, spec), device=device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _level_rows(sides_hw: tuple[tuple[int, int], ...], spec: PoolerSpec) -> list[list[float]]:
    rows: list[list[float]] = pack(sides_hw).level_table(spec.strides).tolist()
    return rows


def _removals(
    boxes: Tensor, groups: Tensor | None, rows: slice, columns: slice, iou: float
) -> Tensor:
    """Half [B, b, b']: 1 where the column's box would suppress the row's."""
    row, column = boxes[:, rows, None], boxes[:, None, columns]
    low, high = (
        torch.maximum(row[..., :2], column[..., :2]),
        torch.minimum(row[..., 2:], column[..., 2:]),
    )
    sides = (high - low).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    meets = shared / (_area(column) + _area(row) - shared) > largest_float32_not_above(iou)
    if groups is not None:
        meets = meets & (groups[:, rows, None] == groups[:, None, columns])
    return meets.half()


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _assemble(features: Sequence[Tensor]) -> Tensor:
    """All levels on one [N, C, H, W] canvas, zero between them."""
    sides_hw = tuple((f.shape[2], f.shape[3]) for f in features)
    height, width, *origins = _places(sides_hw)
    canvas = features[0].new_zeros(*features[0].shape[:2], height, width)
    for level, feature in enumerate(features):
        top, left = origins[2 * level : 2 * level + 2]
        canvas[:, :, top : top + feature.shape[2], left : left + feature.shape[3]] = feature
    return canvas


def _grid(
    rois: Tensor, valid: Tensor, areas: Sequence[float], table: Tensor, spec: PoolerSpec
) -> Tensor:
    area = _area(rois)
    level = torch.zeros_like(area, dtype=torch.int64)
    for start in areas:
        level = level + (area >= start)
    row = functional.embedding(level, table)[:, :, None]
    scale, side, slope, shift = torch.split(row, 2, dim=3)
    half = 0.5 if spec.aligned else 0.0
    corner = rois[:, :, None, :2] * scale - half
    extent = rois[:, :, None, 2:] * scale - half - corner
    if not spec.aligned:
        extent = extent.clamp(min=1.0)
    size, ratio = spec.output_size, spec.sampling_ratio
    steps = torch.arange(size * ratio, device=rois.device).to(rois.dtype)
    steps = torch.div(steps, ratio, rounding_mode="floor") + (steps % ratio + 0.5) / ratio
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    samples = corner + extent / size * torch.stack([x, y], dim=-1).reshape(-1, 2)
    absent = (samples < -1) | (samples > side) | ~valid[:, :, None, None]
    inside = torch.minimum(samples.clamp(min=0.0), side - 1)
    return torch.where(absent, _NOWHERE, inside * slope + shift)


def _sample(canvas: Tensor, grid: Tensor, spec: PoolerSpec) -> Tensor:
    """Float [N, R', C, P, P]."""
    size, ratio = spec.output_size, spec.sampling_ratio
    count, rois = grid.shape[:2]
    flat = grid.reshape(count, rois * size * ratio, size * ratio, 2)
    sampled = functional.grid_sample(
        canvas.to(grid.dtype), flat, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    pooled = functional.avg_pool2d(sampled, ratio).to(canvas.dtype)
    return pooled.reshape(count, -1, rois, size, size).transpose(1, 2)
