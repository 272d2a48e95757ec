"""PrRoIPool: the exact mean of the bilinear surface over each bin.

Along an axis the surface is a sum of hat functions, one on each cell's center. The integral over a
bin is a difference of their antiderivatives, and a bin in two axes has the product of two weights.

Legend: R RoIs, C channels, P bins along an axis, L cells along an axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.pooling.arithmetic import TorchArithmetic
from model.pooling.frame import in_cells
from model.spec import PoolerSpec


def prroi_pool(feature: Tensor, rois: Tensor, stride: int, spec: PoolerSpec) -> Tensor:
    """See `model.pooling.pool`; outside, the surface falls to 0 over one cell; an empty RoI is 0.

    Source: Acquisition of Localization Confidence for Accurate Object Detection, sec. 3.3.
    """
    xp = TorchArithmetic(rois.device)
    low, high = rois[:, 1:3].double(), rois[:, 3:5].double()
    start, sides = in_cells(xp, low, high, 1.0 / stride, spec)
    columns, rows = (
        _weights(start[:, axis], sides[:, axis], feature.shape[3 - axis], spec.output_size)
        for axis in (0, 1)
    )
    size = spec.output_size
    pooled = feature.new_zeros(len(rois), feature.shape[1], size, size)
    for roi, image in enumerate(rois[:, 0].long().tolist()):
        across, along = _touched(columns[roi]), _touched(rows[roi])
        cells = feature[image, :, along, across]
        along_weights = rows[roi, :, along].to(feature.dtype)  # [P, h]
        pooled[roi] = along_weights @ cells @ columns[roi, :, across].to(feature.dtype).T
    return pooled


def _weights(start: Tensor, side: Tensor, cells: int, size: int) -> Tensor:
    """Float64 [R, P, L]: the weight of a cell in the mean over a bin; 0 for an empty RoI."""
    edges = torch.arange(size + 1, device=start.device)
    edges = start[:, None] + side[:, None] / size * edges  # [R, P + 1]
    centers = torch.arange(cells, device=start.device)
    integral = _hat_integral(edges[:, :, None] - centers)  # [R, P + 1, L]
    length = (side / size)[:, None, None]
    mean = (integral[:, 1:] - integral[:, :-1]) / length.clamp(min=1e-30)
    return torch.where(length > 0, mean, 0.0)


def _hat_integral(u: Tensor) -> Tensor:
    """Integral of max(1 - |t|, 0) over t below u."""
    u = u.clamp(-1.0, 1.0)
    return 0.5 + u - u.sign() * u * u * 0.5


def _touched(weights: Tensor) -> slice:
    """The cells of [P, L] from the first to the last one with a weight."""
    cells = torch.nonzero(weights.any(dim=0)).squeeze(1)
    return slice(int(cells[0]), int(cells[-1]) + 1) if len(cells) else slice(0, 0)
