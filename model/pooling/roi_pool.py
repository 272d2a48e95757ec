"""RoIPool: the RoI and its bins are quantized to cells; a bin is the maximum of its cells."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import ops

from model.pooling.arithmetic import TorchArithmetic
from model.pooling.frame import in_cells
from model.spec import PoolerSpec


def roi_pool(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """See `model.pooling.pool`; a bin without a cell of the level is 0.

    "round" is torchvision's: edges are rounded, the last cell is included, and bins may overlap by
    a cell. "floor" rounds down start and end, and the bin to a whole number of cells, at least
    one; cells left at the end are ignored.

    Source: Fast R-CNN, sec. 2.1; torchvision `roi_pool`.
    """
    if spec.quantise == "round":
        pooled: Tensor = ops.roi_pool(feature, rois, spec.output_size, 1.0 / stride)
        return pooled
    xp = TorchArithmetic(rois.device)
    start, sides = in_cells(xp, rois[:, 1:3], rois[:, 3:5], 1.0 / stride, spec)
    # P bins of a whole number of cells: torchvision has nothing to round.
    cells = spec.output_size * xp.maximum(xp.floor(sides / spec.output_size), 1.0)
    whole = torch.cat([rois[:, :1], start, start + cells - 1.0], dim=1)
    floored: Tensor = ops.roi_pool(feature, whole, spec.output_size, 1.0)
    return floored
