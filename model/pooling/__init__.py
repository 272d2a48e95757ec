"""RoI poolers of one pyramid level; `model.ops.pyramid_pool` chooses the level.

Eager poolers:
prroi_pool: IoU-Net's, an integral instead of samples, not quantized
product_grid: TensorFlow's crop-and-resize and MNC's RoIWarp, a fixed number of bilinear samples
roi_align: Mask R-CNN's, not quantized
roi_pool: Fast R-CNN's, RoI and bins quantized

Static forms, as tensors (`model.native.pooling`) and as a graph (`export.lowering`):
arithmetic: the operations that both provide
frame: a RoI in cells of its level
joint: samples, if their number depends on the RoI
packing: all levels on one canvas
plan: the layout of a RoI's samples
sample_grid: positions of a RoI's samples on the canvas
steps: samples, if every RoI has the same number
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from model.pooling.product_grid import pool_product_grid
from model.pooling.prroi_pool import prroi_pool
from model.pooling.roi_align import roi_align
from model.pooling.roi_pool import roi_pool
from model.spec import PoolerSpec
from model.spec.pooler import PoolerKind

__all__ = ["pool"]

_Pooler = Callable[[Tensor, Tensor, int, PoolerSpec], Tensor]
_POOLERS: dict[PoolerKind, _Pooler] = {
    "roi_align": roi_align,
    "roi_pool": roi_pool,
    "roi_warp": pool_product_grid,
    "crop_and_resize": pool_product_grid,
    "prroi_pool": prroi_pool,
}


def pool(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """Pool RoIs of one level.

    Args:
        feature: float32 [N, C, H, W].
        rois: float32 [R, 5]: image index, then xyxy in canvas pixels.
        stride: canvas pixels per cell.
        spec: of the pooler.

    Returns:
        float32 [R, C, P, P].
    """
    return _POOLERS[spec.kind](feature, rois, stride, spec)
