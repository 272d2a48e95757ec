"""The two operators with static shapes, in PyTorch, for `torch.compile` and CUDA graphs.

The eager implementations select rows by their data, which a CUDA graph cannot record. These
compute the same as the `native` lowering: one sampling of a canvas that holds all levels, and NMS
as a fixed-point iteration. docs/tensorrt.md explains both.

Legend: B NMS problems, K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from model.float32 import largest_float32_not_above
from model.native.options import NativeOptions
from model.native.pooling import pool_static
from model.spec import PoolerSpec


@dataclass(frozen=True, slots=True)
class StaticOperators:
    """Implements `model.ops.Operators`."""

    options: NativeOptions = field(default_factory=NativeOptions)

    def pyramid_pool(
        self, features: Sequence[Tensor], rois: Tensor, valid: Tensor, spec: PoolerSpec
    ) -> tuple[Tensor, Tensor]:
        """See `model.ops.pyramid_pool`."""
        return pool_static(features, rois, valid, spec, self.options)

    def nms_keep(
        self, boxes: Tensor, valid: Tensor, groups: Tensor, num_groups: int, iou: float, stage: str
    ) -> tuple[Tensor, Tensor]:
        """See `model.ops.nms_keep`."""
        rounds, total = self.options.rounds(stage), boxes.shape[1]
        size = self.options.block_size(total)
        kept: list[Tensor] = []
        undecided: list[Tensor] = []
        blocks = [slice(start, start + size) for start in range(0, total, size)]
        for index, rows in enumerate(blocks):
            candidates = valid[:, rows, None].half()
            group = groups if num_groups > 1 else None
            for earlier, keep in zip(blocks[:index], kept, strict=True):
                matrix = _removals(boxes, group, rows, earlier, iou)
                candidates = functional.relu(candidates - matrix @ keep)
            own = _removals(boxes, group, rows, rows, iou).tril(-1)
            before = keep = candidates
            for _ in range(rounds):
                before, keep = keep, functional.relu(candidates - own @ keep)
            kept.append(keep)
            changed = (keep != before).sum(dim=(1, 2))
            if undecided:  # a block after an undecided one is undecided as a whole
                changed = torch.where(undecided[-1] > 0, keep.shape[1], changed)
            undecided.append(changed)
        keep_all = torch.cat(kept, dim=1)[:, :, 0] > 0
        return keep_all, torch.stack(undecided).sum(dim=0).to(torch.int32)


def _removals(
    boxes: Tensor, groups: Tensor | None, rows: slice, columns: slice, iou: float
) -> Tensor:
    """Half [B, b, b']: 1 where the column's box would suppress the row's."""
    row, column = boxes[:, rows, None], boxes[:, None, columns]
    low = torch.maximum(row[..., :2], column[..., :2])
    high = torch.minimum(row[..., 2:], column[..., 2:])
    sides = (high - low).clamp(min=0)
    overlap = sides[..., 0] * sides[..., 1]
    ious = overlap / (_area(column) + _area(row) - overlap)
    removes = ious > largest_float32_not_above(iou)
    if groups is not None:
        removes = removes & (groups[:, rows, None] == groups[:, None, columns])
    return removes.half()


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
