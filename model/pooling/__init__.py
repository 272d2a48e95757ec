"""The pooling family in eager form, one pooler per file; the static forms share `places`.

All of them pool on one level; `model.ops.pyramid_pool` chooses the level. The fields of
`model.spec.PoolerSpec` say which member it is.

| file | kind | first and second quantisation |
|---|---|---|
| `roi_align` | Mask R-CNN's | none |
| `roi_pool` | Fast R-CNN's | RoI, bins |
| `roi_warp` | MNC's | RoI |
| `crop_and_resize` | TensorFlow's | none |
| `prroi_pool` | IoU-Net's, an integral instead of samples | none |
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from model.pooling.crop_and_resize import crop_and_resize
from model.pooling.prroi_pool import prroi_pool
from model.pooling.roi_align import roi_align
from model.pooling.roi_pool import roi_pool
from model.pooling.roi_warp import roi_warp
from model.spec import PoolerSpec
from model.spec.pooler import PoolerKind

__all__ = ["pool"]

_Pooler = Callable[[Tensor, Tensor, int, PoolerSpec], Tensor]
_POOLERS: dict[PoolerKind, _Pooler] = {
    "roi_align": roi_align,
    "roi_pool": roi_pool,
    "roi_warp": roi_warp,
    "crop_and_resize": crop_and_resize,
    "prroi_pool": prroi_pool,
}


def pool(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """Pool RoIs of one level.

    Args:
        feature: float32 [N, C, H, W].
        rois: float32 [R, 5]: image index, then xyxy in canvas pixels.
        stride: canvas pixels per cell.
        spec: kind, bins and samples.

    Returns:
        float32 [R, C, P, P].
    """
    return _POOLERS[spec.kind](feature, rois, stride, spec)
