"""Crop-and-resize: points from corner to corner, of 2P x 2P the greatest of each 2 x 2."""

from __future__ import annotations

from torch import Tensor

from model.pooling.product_grid import pool_product_grid
from model.spec import PoolerSpec


def crop_and_resize(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """See `model.pooling.pool`; a point outside the level is 0.

    The first and the last point stand on the RoI's edges, where cell i is at i; one point alone
    stands in the middle. `model.pooling.frame` says what an edge's place in cells is.

    Source: TensorFlow `tf.image.crop_and_resize`, "bilinear", extrapolation value 0.
    """
    return pool_product_grid(feature, rois, stride, spec)
