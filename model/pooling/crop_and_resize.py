"""Crop-and-resize: points from corner to corner; of 2P x 2P points, the maximum of each 2 x 2."""

from __future__ import annotations

from torch import Tensor

from model.pooling.product_grid import pool_product_grid
from model.spec import PoolerSpec


def crop_and_resize(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """See `model.pooling.pool`; a point outside the level is 0.

    The first and the last point are on the RoI's edges; a single point is at its center. Cell i
    is at coordinate i (`model.pooling.frame`).

    Source: TensorFlow `tf.image.crop_and_resize`, "bilinear", extrapolation value 0.
    """
    return pool_product_grid(feature, rois, stride, spec)
