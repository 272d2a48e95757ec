"""The layout of a RoI's samples and the reduction of each bin.

Both static forms of pooling use it: the graph of `export.lowering.packed_pool` and the tensors of
`model.native.pooling`. `model.pooling.sample_grid` computes the positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from model.pooling.budget import depends_on_the_roi, worst_case
from model.spec import PoolerSpec


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Samples of a RoI, `rows` x `columns`; a bin has `kernel_hw` of them.

    Attributes:
        rows: P * n if a bin has n x n samples, else P * P, one row per bin.
        columns: P * n, else the budget.
        kernel_hw: n x n, else 1 x budget.
        budget: samples in a bin, distributed over y and x for each RoI; 0 if all RoIs have the
            same n x n.
        most_per_axis: samples along each axis of a RoI that needs more than the budget.
        reduce: the reduction of a bin; "sum" is weighted.
        nearest: whether samples are cells, which need no interpolation.
    """

    rows: int
    columns: int
    kernel_hw: tuple[int, int]
    budget: int = 0
    most_per_axis: int = 0
    reduce: Literal["average", "sum", "max"] = "average"
    nearest: bool = False

    @property
    def samples(self) -> int:
        """Samples of a RoI."""
        return self.rows * self.columns


def sample_plan(spec: PoolerSpec, budget: int, max_sampling: int | None) -> SamplePlan:
    """The plan of a pooler.

    Args:
        spec: of the pooler.
        budget: of `sample_budget`.
        max_sampling: see `model.native.options.NativeOptions`.
    """
    size, ratio = spec.output_size, spec.sampling_ratio
    if budget:
        most = max_sampling or isqrt(budget)
        is_pool = spec.kind == "roi_pool"
        reduce: Literal["sum", "max"] = "max" if is_pool else "sum"
        return SamplePlan(
            size**2, budget, (1, budget), budget, min(most, isqrt(budget)), reduce, is_pool
        )
    is_max = spec.reduce == "max" or spec.kind == "crop_and_resize"
    side = size * ratio
    return SamplePlan(side, side, (ratio, ratio), reduce="max" if is_max else "average")


def sample_budget(
    spec: PoolerSpec,
    sides_hw: Sequence[tuple[int, int]],
    level_areas: Sequence[float],
    max_sampling: int | None,
) -> int:
    """Samples in a bin: `max_sampling` squared, or as many as any RoI on the canvas needs.

    0 if the number of samples does not depend on the RoI.
    """
    if not depends_on_the_roi(spec):
        return 0
    worst = worst_case(spec, sides_hw, level_areas)
    return worst if max_sampling is None else min(worst, max_sampling**2)
