"""The smallest RoI area of each pyramid level.

The level rule is monotonic in a RoI's area, so each level starts at one float32 area, found here
by bisection of the eager rule. Comparing areas needs no logarithm and gives the eager model's
level for every RoI, also at the boundaries.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from model.ops import pyramid_levels
from model.spec import PoolerSpec


def level_areas(spec: PoolerSpec) -> list[float]:
    """Smallest area, in square canvas pixels, of each level except the finest; [] for one level.

    Source: `model.ops.pyramid_levels`, bisected over all float32 numbers.
    """
    return list(_level_areas(spec))


@cache
def _level_areas(spec: PoolerSpec) -> tuple[float, ...]:
    finest, coarsest = spec.strides[0].bit_length() - 1, spec.strides[-1].bit_length() - 1
    count = coarsest - finest + 1
    starts = []
    for level in range(1, count):
        # Positive floats have the order of their bits.
        below, above = 0, int(np.array(np.finfo(np.float32).max).view(np.int32))
        while above - below > 1:
            middle = (below + above) // 2
            area = float(np.array(middle, np.int32).view(np.float32))
            roi = torch.tensor([[0.0, 0.0, area, 1.0]])
            reached = pyramid_levels(
                roi,
                count,
                finest,
                spec.canonical_size,
                spec.canonical_level,
                spec.inner_eps,
                spec.outer_eps,
            )
            below, above = (below, middle) if int(reached) >= level else (middle, above)
        starts.append(float(np.array(above, np.int32).view(np.float32)))
    return tuple(starts)
