"""The number of samples that a bin can need, if it depends on the RoI.

Legend: g, samples (or pieces, or cells) of a bin along one axis; P, bins per side.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, inf

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
