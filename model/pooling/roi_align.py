"""RoIAlign: the average or the maximum of bilinear samples; nothing is quantized."""

from __future__ import annotations

from torch import Tensor
from torchvision import ops

from model.pooling.product_grid import pool_product_grid
from model.spec import PoolerSpec


def roi_align(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """See `model.pooling.pool`; torchvision computes averages of centered samples.

    Source: Mask R-CNN, sec. 3; torchvision `roi_align`.
    """
    if spec.reduce == "average" and spec.placement == "centred":
        pooled: Tensor = ops.roi_align(
            feature, rois, spec.output_size, 1.0 / stride, spec.sampling_ratio, spec.aligned
        )
        return pooled
    return pool_product_grid(feature, rois, stride, spec)
