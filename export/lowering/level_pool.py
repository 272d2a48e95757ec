"""Pooling on one level, of the `standard` lowering: `RoiAlign`, `MaxRoiPool` or an integral.

All poolers but PrRoIPool and RoIPool take equidistant samples in rows and columns, which `RoiAlign`
computes with one sample per bin.

Legend: R RoIs, C channels, P bins and S samples along an axis.
"""

from __future__ import annotations

from export.lowering.arithmetic import GRAPH
from export.lowering.integral_pool import pool_integral
from export.lowering.values import FLOAT, Value, ints, number, op
from model.pooling.frame import in_cells
from model.pooling.steps import axis_steps, margins, step_count
from model.spec import PoolerSpec

_EDGE = 2  # cells


def pool_level(feature: Value, rois: Value, image: Value, stride: int, spec: PoolerSpec) -> Value:
    """Pool float32 [R, 4] xyxy canvas pixels of the images int64 [R]: float32 [R, C, P, P].

    `feature` is float32 [N, C, H, W] with fixed or dynamic sides; R may be 0.
    """
    if spec.kind == "roi_align" and spec.reduce == "average" and spec.placement == "centred":
        return _average(feature, rois, image, stride, spec)
    start, sides = _frame(feature, rois, stride, spec)
    if spec.kind == "roi_pool":
        return _max_cells(feature, rois, image, start, sides, stride, spec)
    if spec.kind == "prroi_pool":
        return pool_integral(feature, image, start, sides, spec.output_size)
    if spec.kind == "roi_align":  # RoiAlign itself sets samples outside to 0
        return _by_bin(_product_grid(feature, image, start, sides, spec), spec)
    # With its edge repeated, the level extends beyond every sample that counts.
    wide = op.Pad(feature, ints(0, 0, _EDGE, _EDGE, 0, 0, _EDGE, _EDGE), mode="edge")
    samples = _product_grid(wide, image, start + number(_EDGE), sides, spec)
    return _by_bin(op.Mul(samples, _inside(feature, start, sides, spec)), spec)


def _average(feature: Value, rois: Value, image: Value, stride: int, spec: PoolerSpec) -> Value:
    return op.RoiAlign(
        feature,
        rois,
        image,
        coordinate_transformation_mode="half_pixel" if spec.aligned else "output_half_pixel",
        mode="avg",
        output_height=spec.output_size,
        output_width=spec.output_size,
        sampling_ratio=spec.sampling_ratio,
        spatial_scale=1.0 / stride,
    )


def _frame(feature: Value, rois: Value, stride: int, spec: PoolerSpec) -> tuple[Value, Value]:
    """Corner and sides, float32 [R, 2] in cells, x before y."""
    scale: Value = number(1.0 / stride)
    if spec.kind == "crop_and_resize" and spec.crop_frame == "image":
        side = _side_xy(feature)
        pixels = side * number(stride) - number(1.0)
        scale = (side - number(1.0)) / op.Max(pixels, number(1.0))
    low, high = op.Split(rois, num_outputs=2, axis=1)
    return in_cells(GRAPH, low, high, scale, spec)


def _side_xy(feature: Value) -> Value:
    """Float32 [2]: columns and rows."""
    return op.Cast(op.Gather(op.Shape(feature), ints(3, 2)), to=FLOAT)


def _product_grid(
    feature: Value, image: Value, start: Value, sides: Value, spec: PoolerSpec
) -> Value:
    """Float32 [R, C, S, S]: the samples of every RoI, as bins of RoiAlign."""
    ratio, bins = spec.sampling_ratio, spec.output_size
    count, end = bins * ratio, start + sides
    if spec.kind == "crop_and_resize":
        if count > 1:  # the outer samples are on the edges: half a step more on each side
            half = sides * number(0.5 / step_count(spec))
            start, end = start - half, end + half
    elif spec.placement == "even":
        # n + 1 samples per bin, half a step earlier; the first is on the bin's edge and is dropped.
        count = bins * (ratio + 1)
        half = sides * number(0.5 / count)
        start, end = start - half, end - half
    half_cell = number(0.5)
    samples = op.RoiAlign(
        feature,
        op.Concat(start + half_cell, end + half_cell, axis=1),
        image,
        coordinate_transformation_mode="half_pixel",
        mode="avg",
        output_height=count,
        output_width=count,
        sampling_ratio=1,
        spatial_scale=1.0,
    )
    if spec.placement == "even" and spec.kind != "crop_and_resize":
        parts = op.Reshape(samples, ints(0, 0, bins, ratio + 1, bins, ratio + 1))
        inner = op.Slice(parts, ints(1, 1), ints(ratio + 1, ratio + 1), ints(3, 5))
        samples = op.Reshape(inner, ints(0, 0, bins * ratio, bins * ratio))
    return samples


def _inside(feature: Value, start: Value, sides: Value, spec: PoolerSpec) -> Value:
    """Float32 [R, 1, S, S]: 1 for a sample inside the level, else 0."""
    step = op.Unsqueeze(sides / number(step_count(spec)), ints(1))
    steps = GRAPH.numbers([[step] for step in axis_steps(spec)])  # [S, 1]
    positions = op.Unsqueeze(start, ints(1)) + step * steps  # [R, S, 2]
    before, behind = margins(spec)
    limit = _side_xy(feature) + number(behind - 1.0)
    outside = GRAPH.either(positions < number(-before), positions > limit)
    counts = op.Cast(op.Not(outside), to=FLOAT)
    x, y = op.Split(counts, num_outputs=2, axis=2)  # [R, S, 1]
    return op.Unsqueeze(op.Mul(y, op.Transpose(x, perm=[0, 2, 1])), ints(1))


def _by_bin(samples: Value, spec: PoolerSpec) -> Value:
    bins, ratio = spec.output_size, spec.sampling_ratio
    if ratio == 1:
        return samples
    parts = op.Reshape(samples, ints(0, 0, bins, ratio, bins, ratio))
    is_max = spec.reduce == "max" or spec.kind == "crop_and_resize"
    reduce = op.ReduceMax if is_max else op.ReduceMean
    return reduce(parts, ints(3, 5), keepdims=0)


def _max_cells(
    feature: Value,
    rois: Value,
    image: Value,
    start: Value,
    sides: Value,
    stride: int,
    spec: PoolerSpec,
) -> Value:
    """RoIPool; `model.pooling.roi_pool` explains the boxes of "floor"."""
    scale = 1.0 / stride
    if spec.quantise == "floor":
        size = number(spec.output_size)
        cells = op.Max(op.Floor(sides / size), number(1.0)) * size
        rois, scale = op.Concat(start, start + cells - number(1.0), axis=1), 1.0
    column = op.Unsqueeze(op.Cast(image, to=FLOAT), ints(1))
    return op.MaxRoiPool(
        feature,
        op.Concat(column, rois, axis=1),
        pooled_shape=[spec.output_size, spec.output_size],
        spatial_scale=scale,
    )
