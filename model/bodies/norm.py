"""The normalization after a convolution."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from model.spec.body import GROUPS_OF_GROUP_NORM, NormKind

Norm = Callable[[int], nn.Module]


def norm_layer(norm: NormKind, eps: float) -> Norm | None:
    """The layer's constructor, from channels; None if the convolution has a bias instead.

    FrozenBatchNorm and SyncBatchNorm are BatchNorm at inference; detectron2 and MMDetection give
    GroupNorm 32 groups.
    """
    if norm == "batch_norm":
        return partial(nn.BatchNorm2d, eps=eps)
    if norm == "group_norm":
        return partial(nn.GroupNorm, GROUPS_OF_GROUP_NORM, eps=eps)
    return None
