"""Samples where their number depends on the RoI: one budget of B for each bin, shared by y and x.

A RoI that needs g_y x g_x samples in a bin uses the first g_y * g_x of the B, row by row, so that
a long RoI needs no more than a round one.

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
        samples: float32 [N, R, Q, B, 2]; what is outside the level is still to be clamped.
        absent: bool [N, R, Q, B or 1, 2], samples that count 0; one axis is enough.
        cut: bool [N, R, 1, 1], RoIs that need more than B.
        weight: float32 [N, R, Q, B], or None where all samples count alike.
        share: float32 [N, R, 1, 1] by which a bin's sum becomes its average, or None.
    """

    samples: Array
    absent: Array
    cut: Array
    weight: Array | None = None
    share: Array | None = None


@dataclass(frozen=True, slots=True)
class _Shared:
    """How a RoI uses the budget.

    `index` [N, R, 1, B, 2] counts from 0 along x and y, `count` [N, R, 1, 1, 2] says how far that
    goes, at least 1; `used` [N, R, 1, B, 1] which of the B samples it takes; `total`
    [N, R, 1, 1] how many; `cut` [N, R, 1, 1, 1] whether it needs more.
    """

    index: Array
    count: Array
    used: Array
    total: Array
    cut: Array


def joint_samples(
    xp: Arithmetic, start: Array, sides: Array, side: Array, spec: PoolerSpec, plan: SamplePlan
) -> JointSamples:
    """The samples of a RoI from `start` on, as long as `sides`, on a level of `side` cells.

    All are float32 [N, R, 1, 1, 2].
    """
    write: Callable[..., JointSamples] = {
        "roi_align": _adaptive, "roi_pool": _cells, "prroi_pool": _pieces
    }[spec.kind]  # fmt: skip
    return write(xp, start, sides, side, spec, plan)


def _share_out(xp: Arithmetic, wanted: Array, plan: SamplePlan) -> _Shared:
    """`wanted` float32 [N, R, 1, 1, 2]: whole numbers from 0."""
    x, y = xp.split(wanted, 2, 4)
    cut = x * y > float(plan.budget)
    got = xp.where(cut, xp.minimum(wanted, float(plan.most_per_axis)), wanted)
    x, y = xp.split(got, 2, 4)
    rank = xp.numbers([[float(i)] for i in range(plan.budget)])  # [B, 1]
    count = xp.maximum(got, 1.0)
    columns, _ = xp.split(count, 2, 4)
    # Half a step away from every whole number, so that float32 cannot miss the row.
    row = xp.floor((rank + 0.5) / columns)
    index = xp.join([rank - row * columns, row], 4)
    total = x * y
    return _Shared(index, count, rank < total, xp.squeeze_last(total), cut)


def _adaptive(
    xp: Arithmetic, start: Array, sides: Array, side: Array, spec: PoolerSpec, plan: SamplePlan
) -> JointSamples:
    """RoIAlign with ceil(bin) samples along each axis; none where the RoI is empty.

    Source: torchvision `roi_align`, `sampling_ratio` 0.
    """
    length = sides / float(spec.output_size)
    shared = _share_out(xp, xp.maximum(xp.ceil(length), 0.0), plan)
    samples = start + length * (_bins(xp, spec) + (shared.index + 0.5) / shared.count)
    outside = xp.either(samples < -1.0, samples > side)
    absent = xp.either(outside, xp.invert(shared.used))
    share = xp.numbers([1.0]) / xp.maximum(shared.total, 1.0)
    return JointSamples(samples, absent, xp.squeeze_last(shared.cut), share=share)


def _cells(
    xp: Arithmetic, start: Array, sides: Array, side: Array, spec: PoolerSpec, plan: SamplePlan
) -> JointSamples:
    """RoIPool: the cells of each bin. Samples that a bin does not need repeat its last cell.

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
    shared = _share_out(xp, xp.largest(cells, 2), plan)
    # Where every cell gets a sample this visits all; else it is spread over them.
    cell = first + xp.floor((shared.index + 0.5) * cells / shared.count)
    return JointSamples(xp.minimum(cell, end - 1.0), cells < 1.0, xp.squeeze_last(shared.cut))


def _pieces(
    xp: Arithmetic, start: Array, sides: Array, side: Array, spec: PoolerSpec, plan: SamplePlan
) -> JointSamples:
    """PrRoIPool: a bin is cut at the cells' centres into pieces on which the surface is bilinear.

    The mean of such a piece is its value in the middle. A RoI over the budget is cut into equal
    pieces, on which that is not exact.

    Source: Acquisition of Localization Confidence for Accurate Object Detection, sec. 3.3.
    """
    length = sides / float(spec.output_size)
    begin = start + length * _bins(xp, spec)  # [N, R, Q, 1, 2]
    cell = xp.floor(begin)
    wanted = xp.maximum(xp.largest(xp.ceil(begin + length) - cell, 2), 0.0)
    shared = _share_out(xp, wanted, plan)
    divisor = xp.maximum(length, 1e-30)

    def cut_at(index: Array) -> Array:
        """Where piece `index` begins, from 0 to 1 over the bin: tiny bins keep their precision."""
        place = xp.where(shared.cut, index / shared.count, (cell + index - begin) / divisor)
        return xp.minimum(xp.maximum(place, 0.0), 1.0)

    lower, upper = cut_at(shared.index), cut_at(shared.index + 1.0)
    samples = begin + length * ((lower + upper) * 0.5)
    # Outside the level the surface falls to 0 over one cell; the sample is clamped to the edge.
    outside = xp.maximum(xp.maximum(-samples, samples - (side - 1.0)), 0.0)
    weight = (upper - lower) * xp.maximum(1.0 - outside, 0.0)
    weight = xp.where(sides > 0.0, weight, 0.0)
    x, y = xp.split(weight, 2, 4)
    return JointSamples(
        samples,
        outside > 1.0,
        xp.squeeze_last(shared.cut),
        weight=xp.squeeze_last(x * y),
    )


def _bins(xp: Arithmetic, spec: PoolerSpec) -> Array:
    """Float32 [Q, 1, 2]: the number of each bin along x and y; y runs slower."""
    size = range(spec.output_size)
    return xp.numbers([[[float(x), float(y)]] for y in size for x in size])
