"""Samples of poolers whose number of samples depends on the RoI: B per bin, for y and x jointly.

A RoI that needs g_y x g_x samples in a bin uses the first g_y * g_x of the B, row by row, so that
an elongated RoI needs no more samples than a square one of the same area.

Legend: N images, R RoIs, Q = P * P bins, B samples of a bin, x before y throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model.pooling.arithmetic import Arithmetic, Array
from model.pooling.plan import SamplePlan
from model.spec import PoolerSpec


@dataclass(frozen=True, slots=True)
class JointSamples:
    """Samples in cells of a level.

    Attributes:
        samples: float32 [N, R, Q, B, 2], not yet clamped to the level.
        absent: bool [N, R, Q, B or 1, 2], samples that count 0, if true along either axis.
        cut: bool [N, R, 1, 1], RoIs that need more than B samples.
        weight: float32 [N, R, Q, B], or None if all samples have equal weights.
        factor: float32 [N, R, 1, 1], which turns a bin's sum into its average, or None.
    """

    samples: Array
    absent: Array
    cut: Array
    weight: Array | None = None
    factor: Array | None = None


@dataclass(frozen=True, slots=True)
class _Allocation:
    """How a RoI uses the budget of B samples per bin.

    Attributes:
        index: float32 [N, R, 1, B, 2], of a sample along x and y, from 0.
        count: float32 [N, R, 1, 1, 2], samples along x and y, at least 1.
        used: bool [N, R, 1, B, 1], the samples that the RoI uses.
        total: float32 [N, R, 1, 1], the number of those.
        cut: bool [N, R, 1, 1, 1], whether it needs more than B.
    """

    index: Array
    count: Array
    used: Array
    total: Array
    cut: Array


def joint_samples(
    xp: Arithmetic, start: Array, sides: Array, side: Array, spec: PoolerSpec, plan: SamplePlan
) -> JointSamples:
    """The samples of RoIs with corner `start` and lengths `sides` on a level of `side` cells.

    All are float32 [N, R, 1, 1, 2], in cells.
    """
    write: Callable[..., JointSamples] = {
        "roi_align": _adaptive, "roi_pool": _cells, "prroi_pool": _pieces
    }[spec.kind]  # fmt: skip
    return write(xp, start, sides, side, spec, plan)


def _allocate(xp: Arithmetic, needed: Array, plan: SamplePlan) -> _Allocation:
    """Distribute the budget; `needed` float32 [N, R, 1, 1, 2] has whole numbers from 0."""
    x, y = xp.split(needed, 2, 4)
    cut = x * y > float(plan.budget)
    granted = xp.where(cut, xp.minimum(needed, float(plan.most_per_axis)), needed)
    x, y = xp.split(granted, 2, 4)
    rank = xp.numbers([[float(i)] for i in range(plan.budget)])  # [B, 1]
    count = xp.maximum(granted, 1.0)
    columns, _ = xp.split(count, 2, 4)
    # Half a step away from every whole number, so that float32 rounding cannot change the row.
    row = xp.floor((rank + 0.5) / columns)
    index = xp.join([rank - row * columns, row], 4)
    total = x * y
    return _Allocation(index, count, rank < total, xp.squeeze_last(total), cut)


def _adaptive(
    xp: Arithmetic, start: Array, sides: Array, side: Array, spec: PoolerSpec, plan: SamplePlan
) -> JointSamples:
    """RoIAlign with ceil(bin length) samples along each axis; none in an empty RoI.

    Source: torchvision `roi_align`, `sampling_ratio` 0.
    """
    length = sides / float(spec.output_size)
    allocation = _allocate(xp, xp.maximum(xp.ceil(length), 0.0), plan)
    samples = start + length * (_bins(xp, spec) + (allocation.index + 0.5) / allocation.count)
    outside = xp.either(samples < -1.0, samples > side)
    absent = xp.either(outside, xp.invert(allocation.used))
    factor = xp.numbers([1.0]) / xp.maximum(allocation.total, 1.0)
    return JointSamples(samples, absent, xp.squeeze_last(allocation.cut), factor=factor)


def _cells(
    xp: Arithmetic, start: Array, sides: Array, side: Array, spec: PoolerSpec, plan: SamplePlan
) -> JointSamples:
    """RoIPool: the cells of each bin; unneeded samples repeat its last cell.

    Source: Fast R-CNN, sec. 2.1; torchvision `roi_pool` ("round").
    """
    length, bins = sides / float(spec.output_size), _bins(xp, spec)
    if spec.quantise == "floor":
        length = xp.maximum(xp.floor(length), 1.0)
        first, end = bins * length, (bins + 1.0) * length
    else:
        first, end = xp.floor(bins * length), xp.ceil((bins + 1.0) * length)
    first = xp.minimum(xp.maximum(first + start, 0.0), side)
    end = xp.minimum(xp.maximum(end + start, 0.0), side)
    cells = end - first  # [N, R, Q, 1, 2]
    allocation = _allocate(xp, xp.largest(cells, 2), plan)
    # This visits every cell if there are enough samples; otherwise they are spread evenly.
    cell = first + xp.floor((allocation.index + 0.5) * cells / allocation.count)
    return JointSamples(xp.minimum(cell, end - 1.0), cells < 1.0, xp.squeeze_last(allocation.cut))


def _pieces(
    xp: Arithmetic, start: Array, sides: Array, side: Array, spec: PoolerSpec, plan: SamplePlan
) -> JointSamples:
    """PrRoIPool: a bin is split at the cells' centers into pieces with a bilinear surface.

    The mean of such a piece is the value at its center. A RoI over the budget is split into equal
    pieces, for which that is not exact.

    Source: Acquisition of Localization Confidence for Accurate Object Detection, sec. 3.3.
    """
    length = sides / float(spec.output_size)
    begin = start + length * _bins(xp, spec)  # [N, R, Q, 1, 2]
    cell = xp.floor(begin)
    needed = xp.maximum(xp.largest(xp.ceil(begin + length) - cell, 2), 0.0)
    allocation = _allocate(xp, needed, plan)
    divisor = xp.maximum(length, 1e-30)

    def piece_start(index: Array) -> Array:
        """Start of a piece, from 0 to 1 over the bin, which keeps the precision of tiny bins."""
        position = xp.where(
            allocation.cut, index / allocation.count, (cell + index - begin) / divisor
        )
        return xp.minimum(xp.maximum(position, 0.0), 1.0)

    lower, upper = piece_start(allocation.index), piece_start(allocation.index + 1.0)
    samples = begin + length * ((lower + upper) * 0.5)
    # Outside the level the surface falls to 0 over one cell; the sample is clamped to the edge.
    outside = xp.maximum(xp.maximum(-samples, samples - (side - 1.0)), 0.0)
    weight = (upper - lower) * xp.maximum(1.0 - outside, 0.0)
    weight = xp.where(sides > 0.0, weight, 0.0)
    x, y = xp.split(weight, 2, 4)
    return JointSamples(
        samples, outside > 1.0, xp.squeeze_last(allocation.cut), weight=xp.squeeze_last(x * y)
    )


def _bins(xp: Arithmetic, spec: PoolerSpec) -> Array:
    """Float32 [Q, 1, 2]: the index of each bin along x and y, x varying fastest."""
    size = range(spec.output_size)
    return xp.numbers([[[float(x), float(y)]] for y in size for x in size])
