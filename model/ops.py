"""The two opaque operators of the network and their eager implementations.

torch.export keeps each as one node, which every target lowers in its own way (`export/lowering`).
The eager implementation defines the result that all lowerings must reproduce.

Legend: N images, R RoIs per image, K boxes per problem, B independent NMS problems,
C channels, P pooled side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from model.pooling import pool
from model.spec import PoolerSpec
from model.spec_json import pooler_from_json, pooler_to_json


def pyramid_levels(
    rois: Tensor,
    num_levels: int,
    finest_level: int,
    canonical_size: float,
    canonical_level: int,
    inner_eps: float,
    outer_eps: float,
) -> Tensor:
    """Choose the pyramid level of each RoI.

    Args:
        rois: float32 [..., 4] xyxy, canvas pixels.
        num_levels: number of levels.
        finest_level: log2 of the finest level's stride.
        canonical_size: side in pixels of a box that is assigned to `canonical_level`.
        canonical_level: log2 of that level's stride.
        inner_eps: added inside the logarithm (detectron2: 1e-8).
        outer_eps: added outside it (torchvision: 1e-6).

    Returns:
        int64 [...], 0 is the finest level.

    Source: Feature Pyramid Networks, eq. 1; torchvision `LevelMapper`; MMDetection
    `SingleRoIExtractor.map_roi_levels`.
    """
    side = torch.sqrt((rois[..., 2] - rois[..., 0]) * (rois[..., 3] - rois[..., 1]))
    level = torch.log2(side / canonical_size + inner_eps)
    if canonical_level == finest_level:
        # MMDetection counts from the finest level. Adding the offset before rounding, in float32,
        # would move other areas to the next level.
        level = torch.floor(level + outer_eps) + finest_level
    else:
        level = torch.floor(canonical_level + level + outer_eps)
    # clamp() leaves the NaN of a degenerate RoI undefined; such rows are never valid.
    level = torch.nan_to_num(level, nan=float(finest_level))
    return level.clamp(finest_level, finest_level + num_levels - 1).long() - finest_level


@torch.library.custom_op("maskrcnn::pyramid_pool", mutates_args=())
def pyramid_pool(
    features: Sequence[Tensor], rois: Tensor, valid: Tensor, pooler: str
) -> tuple[Tensor, Tensor]:
    """Choose the pyramid level of each RoI and pool it there.

    Args:
        features: one float32 [N, C, H_l, W_l] per level, finest first.
        rois: float32 [N, R, 4] xyxy, canvas pixels.
        valid: bool [N, R]; rows that are False are not pooled and become zeros.
        pooler: a `PoolerSpec` as `model.spec_json` writes it.

    Returns:
        pooled, float32 [N * R, C, P, P], image-major; samples_cut, int32 [N], the number of RoIs
        that need more samples than they got (always 0 here).

    Source: Mask R-CNN, sec. 3; torchvision `MultiScaleRoIAlign`; the poolers of `model.pooling`.
    """
    spec = pooler_from_json(pooler)
    num_images, num_rois = rois.shape[:2]
    flat = rois.reshape(-1, 4)
    image_index = torch.arange(num_images, device=rois.device).repeat_interleave(num_rois)
    levels = roi_levels(flat, spec)
    pooled = features[0].new_zeros(
        num_images * num_rois, features[0].shape[1], spec.output_size, spec.output_size
    )
    for level, (feature, stride) in enumerate(zip(features, spec.strides, strict=True)):
        rows = torch.nonzero((levels == level) & valid.reshape(-1)).squeeze(1)
        indexed = torch.cat([image_index[rows, None].to(flat.dtype), flat[rows]], dim=1)
        pooled[rows] = pool(feature, indexed, stride, spec)
    return pooled, torch.zeros(num_images, dtype=torch.int32, device=rois.device)


def roi_levels(rois: Tensor, spec: PoolerSpec) -> Tensor:
    """`pyramid_levels` with the numbers of a spec, for rois float32 [R, 4]."""
    if len(spec.strides) == 1:
        return torch.zeros(rois.shape[0], dtype=torch.int64, device=rois.device)
    finest, coarsest = spec.strides[0].bit_length() - 1, spec.strides[-1].bit_length() - 1
    # With equal strides (MobileNet-V3) there is one level to choose from, as in torchvision.
    return pyramid_levels(
        rois,
        coarsest - finest + 1,
        finest,
        spec.canonical_size,
        spec.canonical_level,
        spec.inner_eps,
        spec.outer_eps,
    )


@pyramid_pool.register_fake
def _(
    features: Sequence[Tensor], rois: Tensor, valid: Tensor, pooler: str
) -> tuple[Tensor, Tensor]:
    spec, rows = pooler_from_json(pooler), rois.shape[0] * rois.shape[1]
    pooled = features[0].new_empty(rows, features[0].shape[1], spec.output_size, spec.output_size)
    return pooled, rois.new_empty(rois.shape[0], dtype=torch.int32)


@torch.library.custom_op("maskrcnn::nms_keep", mutates_args=())
def nms_keep(
    boxes: Tensor, valid: Tensor, groups: Tensor, num_groups: int, iou: float, stage: str
) -> tuple[Tensor, Tensor]:
    """Exact greedy NMS over boxes that are already sorted by descending score.

    Args:
        boxes: float32 [B, K, 4] xyxy, canvas pixels, best first; ties go to the first.
        valid: bool [B, K]; other rows are neither kept nor suppress any.
        groups: int64 [B, K] in [0, num_groups); boxes suppress only boxes of their group.
        num_groups: number of groups; `groups` is ignored if it is 1.
        iou: a box is removed if its IoU with a kept one is strictly greater.
        stage: "proposals" or "detections", the network's NMS that this is. It does not change the
            result; a lowering may use other limits for each.

    Returns:
        keep, bool [B, K]; open, int32 [B], the number of undecided boxes (always 0 here).

    Source: torchvision `nms` per group.
    """
    keep = torch.zeros_like(valid)
    for problem in range(boxes.shape[0]):
        for group in range(num_groups):
            member = valid[problem]
            if num_groups > 1:
                member = member & (groups[problem] == group)
            rows = torch.nonzero(member).squeeze(1)
            rank = torch.arange(rows.numel(), 0, -1, dtype=boxes.dtype, device=boxes.device)
            keep[problem, rows[nms(boxes[problem, rows], rank, iou)]] = True
    return keep, torch.zeros(boxes.shape[0], dtype=torch.int32, device=boxes.device)


@nms_keep.register_fake
def _(
    boxes: Tensor, valid: Tensor, groups: Tensor, num_groups: int, iou: float, stage: str
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(valid), boxes.new_empty(boxes.shape[0], dtype=torch.int32)


class Operators(Protocol):
    """An implementation of the network's pooling and NMS."""

    def pyramid_pool(
        self, features: Sequence[Tensor], rois: Tensor, valid: Tensor, spec: PoolerSpec
    ) -> tuple[Tensor, Tensor]:
        """See the operator `pyramid_pool`; its numbers come from `spec`."""

    def nms_keep(
        self, boxes: Tensor, valid: Tensor, groups: Tensor, num_groups: int, iou: float, stage: str
    ) -> tuple[Tensor, Tensor]:
        """See the operator `nms_keep`."""


class OpaqueOperators:
    """The two operators as single nodes, for export and for eager runs."""

    def pyramid_pool(
        self, features: Sequence[Tensor], rois: Tensor, valid: Tensor, spec: PoolerSpec
    ) -> tuple[Tensor, Tensor]:
        """Pool on one level per stride of the spec."""
        pooled, cut = torch.ops.maskrcnn.pyramid_pool(
            list(features), rois, valid, pooler_to_json(spec)
        )
        return pooled, cut

    def nms_keep(
        self, boxes: Tensor, valid: Tensor, groups: Tensor, num_groups: int, iou: float, stage: str
    ) -> tuple[Tensor, Tensor]:
        """Exact greedy NMS."""
        keep, undecided = torch.ops.maskrcnn.nms_keep(boxes, valid, groups, num_groups, iou, stage)
        return keep, undecided


OPAQUE = OpaqueOperators()


class RoIPooler(nn.Module):
    """`pyramid_pool` with the numbers of a spec.

    A module, so that the nodes of the exported graph have its name as their role.
    """

    def __init__(self, spec: PoolerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.operators: Operators = OPAQUE

    def forward(
        self, features: Sequence[Tensor], rois: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pool float32 [N, R, 4] xyxy canvas pixels.

        Returns:
            float32 [N * R, C, P, P]; samples_cut, int32 [N].
        """
        levels = [features[level] for level in self.spec.pooled_levels]
        return self.operators.pyramid_pool(levels, rois, valid, self.spec)
