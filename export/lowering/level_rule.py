"""The pyramid level of an RoI, from comparisons of its area; see `model.native.level_rule`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.lowering.values import FLOAT, INT32, Value, array, ints, op


def choose_level(rois: Value, areas: Sequence[float]) -> Value:
    """Int32 [N, R]: the level of each RoI of float32 [N, R, 4]; `areas` is not empty."""
    x0, y0, x1, y1 = op.Split(rois, num_outputs=4, axis=2)  # [N, R, 1]
    area = op.Mul(op.Sub(x1, x0), op.Sub(y1, y0))
    reached = op.GreaterOrEqual(area, array(np.array(areas, np.float32)))  # [N, R, L - 1]
    if len(areas) == 1:
        return op.Cast(op.Squeeze(reached, ints(2)), to=INT32)
    level = op.ReduceSum(op.Cast(reached, to=FLOAT), ints(2), keepdims=0)
    return op.Cast(level, to=INT32)
