"""The smallest RoI area of each pyramid level.

The level rule is monotonic in a RoI's area, so each level starts at one float32 area, located here
by bisection of the eager rule. Comparing areas needs no logarithm and gives the eager model's
level for every RoI, also at the boundaries.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from model.ops import roi_levels
from model.spec import PoolerSpec


@cache
def level_areas(spec: PoolerSpec) -> tuple[float, ...]:
    """Smallest area, in square canvas pixels, of each level except the finest; () for one level.

    Source: `model.ops.pyramid_levels`, bisected over all float32 numbers.
    """
    count = (spec.strides[-1] // spec.strides[0]).bit_length()
    areas = []
    for level in range(1, count):
        # Positive floats have the order of their bits.
        below, above = 0, int(np.array(np.finfo(np.float32).max).view(np.int32))
        while above - below > 1:
            middle = (below + above) // 2
            roi = torch.tensor([[0.0, 0.0, _float_of(middle), 1.0]])
            is_reached = int(roi_levels(roi, spec)) >= level
            below, above = (below, middle) if is_reached else (middle, above)
        areas.append(_float_of(above))
    return tuple(areas)


def _float_of(bits: int) -> float:
    return float(np.array(bits, np.int32).view(np.float32))
