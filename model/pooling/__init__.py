"""The pooling family in eager form, one pooler per file.

All of them pool on one level; `model.ops.pyramid_pool` chooses the level.
"""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import roi_align

from model.spec import PoolerSpec

__all__ = ["pool"]


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
    pooled: Tensor = roi_align(
        feature, rois, spec.output_size, 1.0 / stride, spec.sampling_ratio, spec.aligned
    )
    return pooled
