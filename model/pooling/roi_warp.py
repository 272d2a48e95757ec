"""RoIWarp: the RoI is quantized to cells, its bins are not."""

from __future__ import annotations

from torch import Tensor

from model.pooling.product_grid import pool_product_grid
from model.spec import PoolerSpec


def roi_warp(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """See `model.pooling.pool`; the average or the maximum of bilinear samples, as in RoIAlign.

    Source: Instance-aware Semantic Segmentation via Multi-task Network Cascades, sec. 3.2;
    quantized as RoIPool, see `model.pooling.frame`.
    """
    return pool_product_grid(feature, rois, stride, spec)
