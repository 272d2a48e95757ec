"""`pyramid_pool` as one GridSample on a canvas that contains all levels.

Legend: N images, R RoIs per image, C channels, P pooled side.
"""

from __future__ import annotations

from collections.abc import Sequence

from export.lowering.arithmetic import GRAPH
from export.lowering.values import (
    FLOAT,
    INT32,
    Value,
    array,
    choose_level,
    cut,
    ints,
    none_open,
    op,
)
from model.errors import ExportError
from model.native.level_rule import level_areas
from model.native.options import NativeOptions
from model.pooling.packing import Packing, pack
from model.pooling.plan import SamplePlan, sample_budget, sample_plan
from model.pooling.sample_grid import level_rows, sample_grid
from model.spec import PoolerSpec


def pool_packed(
    features: Sequence[Value],
    rois: Value,
    valid: Value,
    spec: PoolerSpec,
    batch: int,
    options: NativeOptions,
) -> tuple[Value, Value]:
    """Sample every RoI from the packed canvas and reduce each bin.

    Args:
        features: one float32 [N, C, H_l, W_l] per level, of fixed sides, finest first.
        rois: float32 [N, R, 4] xyxy, canvas pixels.
        valid: bool [N, R]; the result is 0 for other rows.
        spec: strides, bins, samples and level rule.
        batch: the largest N; limits how many RoIs are sampled at once.
        options: limits of the sample tensor and of adaptive samples per bin.

    Returns:
        pooled, float32 [N * R, C, P, P]; samples_cut, int32 [N], see `model.pooling.joint`.

    Raises:
        ExportError: a canvas without fixed sides.
    """
    areas = level_areas(spec)
    used = list(features)[: len(areas) + 1]
    packing = pack([_fixed_hw(feature) for feature in used])
    budget = sample_budget(spec, packing.sides_hw, areas, options.max_sampling)
    plan = sample_plan(spec, budget, options.max_sampling)
    canvas = assemble(packing, used)
    row = _level_row(rois, areas, packing, spec)
    samples = sample_grid(GRAPH, rois, valid, row, spec, plan)
    count, channels = int(rois.shape[1]), int(used[0].shape[1])
    at_once = max(options.chunk_bytes // (4 * batch * channels * plan.samples), 1)
    weights: list[Value | None] = [None] * count
    if samples.weight is not None:
        weights = [piece for piece, _ in cut(samples.weight, count, at_once, 1)]
    pieces = [
        _sample(canvas, grid, weight, plan)
        for (grid, _), weight in zip(cut(samples.grid, count, at_once, 1), weights, strict=False)
    ]
    pooled = op.Concat(*pieces, axis=1) if len(pieces) > 1 else pieces[0]  # [N, R, C, P * P]
    if samples.factor is not None:
        pooled = op.Mul(pooled, samples.factor)
    flat = op.Reshape(pooled, ints(-1, channels, spec.output_size, spec.output_size))
    return flat, none_open(valid) if samples.cut is None else _count(samples.cut)


def _count(cut_rows: Value) -> Value:
    """Int32 [N]: the number of true values of bool [N, R, 1, 1]."""
    total = op.ReduceSum(op.Cast(cut_rows, to=FLOAT), ints(1, 2, 3), keepdims=0)
    return op.Cast(total, to=INT32)


def assemble(packing: Packing, features: Sequence[Value]) -> Value:
    """Place float32 [N, C, H_l, W_l] maps on one [N, C, H, W] canvas, with zeros between them."""
    along = 3 if packing.in_rows else 2
    across = 5 - along
    length, breadth = packing.canvas_hw[along - 2], packing.canvas_hw[across - 2]
    spare = breadth - sum(packing.breadth(group) for group in packing.groups)
    strips = []
    for group in packing.groups:
        strip = packing.breadth(group) + (spare if group == packing.groups[-1] else 0)
        tiles = []
        for level in group:
            missing = [0, 0, 0, 0]
            missing[across] = strip - packing.sides_hw[level][across - 2]
            missing[along] = length - packing.length(group) if level == group[-1] else 0
            tiles.append(_padded(features[level], missing))
        strips.append(op.Concat(*tiles, axis=along) if len(tiles) > 1 else tiles[0])
    return op.Concat(*strips, axis=across) if len(strips) > 1 else strips[0]


def _padded(feature: Value, after: Sequence[int]) -> Value:
    """Append zeros to each axis."""
    return op.Pad(feature, ints(0, 0, 0, 0, *after)) if any(after) else feature


def _fixed_hw(feature: Value) -> tuple[int, int]:
    height, width = feature.shape[2], feature.shape[3]
    if not isinstance(height, int) or not isinstance(width, int):
        raise ExportError("native lowering: expected a fixed canvas; add --size HxW")
    return height, width


def _level_row(rois: Value, areas: Sequence[float], packing: Packing, spec: PoolerSpec) -> Value:
    """Float32 [N, R, 1, 8] ([1, 1, 1, 8] for one level): each RoI's row of the level table."""
    table = array(level_rows(packing, spec))  # [L, 8]
    if not areas:
        return op.Reshape(table, ints(1, 1, 1, 8))
    return op.Unsqueeze(op.Gather(table, choose_level(rois, areas), axis=0), ints(2))


def _sample(canvas: Value, grid: Value, weight: Value | None, plan: SamplePlan) -> Value:
    """Float32 [N, R', C, P * P]: sample, then reduce the samples of each bin."""
    bins = plan.samples // (plan.kernel_hw[0] * plan.kernel_hw[1])
    flat = op.Reshape(grid, ints(0, -1, plan.columns, 2))
    sampled = op.GridSample(
        canvas,
        flat,
        mode="nearest" if plan.nearest else "bilinear",
        padding_mode="zeros",
        align_corners=0,
    )  # [N, C, R' * rows, columns]
    if weight is not None:
        sampled = op.Mul(sampled, op.Reshape(weight, ints(0, 1, -1, plan.columns)))
    by_roi = op.Reshape(_reduce(sampled, plan), ints(0, 0, -1, bins))
    return op.Transpose(by_roi, perm=[0, 2, 1, 3])


def _reduce(sampled: Value, plan: SamplePlan) -> Value:
    if plan.reduce == "sum":
        return op.ReduceSum(sampled, ints(3), keepdims=0)
    if plan.budget:
        return op.ReduceMax(sampled, ints(3), keepdims=0)
    if plan.kernel_hw == (1, 1):
        return sampled
    shape = {"kernel_shape": list(plan.kernel_hw), "strides": list(plan.kernel_hw)}
    if plan.reduce == "max":
        maximum, _ = op.MaxPool(sampled, **shape)
        return maximum
    return op.AveragePool(sampled, **shape)
