"""The layout of a RoI's samples and the reduction of each bin.

Both static forms of pooling use it: the graph of `export.lowering.packed_pool` and the tensors of
`model.native.pooling`. `model.pooling.sample_grid` computes the positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isqrt
from typing import Literal

from model.spec import PoolerSpec

# Sides and areas are rounded to float32 before they are compared.
_SLACK = 1e-4


def depends_on_the_roi(spec: PoolerSpec) -> bool:
    """Whether the number of samples in a bin depends on the RoI."""
    adaptive = spec.kind == "roi_align" and spec.sampling_ratio == 0
    return adaptive or spec.kind in ("roi_pool", "prroi_pool")


def worst_case(
    spec: PoolerSpec, sides_hw: Sequence[tuple[int, int]], level_areas: Sequence[float]
) -> int:
    """The maximum number of samples that a bin of a RoI inside the canvas needs.

    A RoI slightly wider than a cells and higher than b cells has g(a) x g(b) samples. It is
    assigned to a level only if a x b is below the smallest area of the next level. All a are
    tried, each with the largest b that the canvas and that area allow.

    Args:
        spec: strides and kind.
        sides_hw: rows and columns of each level in use.
        level_areas: as `model.native.level_rule.level_areas`, in square pixels.
    """
    strides = spec.strides[: len(sides_hw)]
    height, width = (
        max(sides[axis] * s for sides, s in zip(sides_hw, strides, strict=True)) for axis in (0, 1)
    )
    worst = 1
    for stride, area in zip(strides, [*level_areas, inf], strict=True):
        rows, columns = ceil(height / stride), ceil(width / stride)
        counts = _counts(spec, max(rows, columns))
        limit = area / stride**2 * (1 + _SLACK)
        for wide in range(columns):
            high = rows - 1 if wide * (rows - 1) <= limit else floor(limit / wide)
            worst = max(worst, counts[wide] * counts[high])
    return worst


def _counts(spec: PoolerSpec, sides: int) -> list[int]:
    """List g of a RoI whose side is at most, or just above, 0, 1, … cells, in ascending order."""
    size = spec.output_size
    if spec.kind == "roi_align":
        return [side // size + 1 for side in range(sides)]
    if spec.kind == "prroi_pool":  # a bin slightly longer than k cells may touch k + 2 cells
        return [side // size + 2 for side in range(sides)]
    if spec.quantise == "floor":
        return [max((side + 1) // size, 1) for side in range(sides)]
    counts = [_most_cells(cells, size) for cells in range(1, sides + 2)]
    return [max(counts[: side + 2]) for side in range(sides)]


def _most_cells(cells: int, size: int) -> int:
    """The cells of the longest of `roi_pool`'s bins over `cells` cells; bins overlap."""
    return max(-(-(i + 1) * cells // size) - i * cells // size for i in range(size))


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
