"""The normalisation that follows a convolution."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from model.spec.body import GROUPS_OF_GROUP_NORM, NormKind

Norm = Callable[[int], nn.Module]


def norm_layer(kind: NormKind, eps: float) -> Norm | None:
    """What makes a layer for so many channels; None where the convolution has a bias instead.

    FrozenBatchNorm and SyncBatchNorm are BatchNorm at inference; detectron2 and MMDetection give
    GroupNorm 32 groups.
    """
    if kind == "batch_norm":
        return partial(nn.BatchNorm2d, eps=eps)
    if kind == "group_norm":
        return partial(nn.GroupNorm, GROUPS_OF_GROUP_NORM, eps=eps)
    return None
