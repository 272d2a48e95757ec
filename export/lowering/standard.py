"""The `standard` lowering: pooling level by level, and ONNX `NonMaxSuppression`.

For ONNX Runtime and OpenVINO; batch, height and width may be dynamic. Opset 18: ONNX Runtime 1.31
has no RoiAlign kernel for opset 22.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from export.lowering.level_pool import pool_level
from export.lowering.table import operator_table
from export.lowering.values import (
    BOOL,
    FLOAT,
    Value,
    array,
    choose_level,
    ints,
    none_open,
    number,
    op,
    scalar,
)
from model.float32 import largest_float32_not_above
from model.native.level_rule import level_areas
from model.spec import PoolerSpec


def pool_by_level(
    features: Sequence[Value], rois: Value, valid: Value, spec: PoolerSpec
) -> tuple[Value, Value]:
    """Pool every valid row on its level, and scatter the results back into row order.

    See `model.ops.pyramid_pool`.
    """
    flat = op.Reshape(rois, ints(-1, 4))
    image_index = _image_index(rois)
    valid_rows = op.Reshape(valid, ints(-1))
    areas = level_areas(spec)
    levels = op.Reshape(choose_level(rois, areas), ints(-1)) if areas else None
    pooled, rows = [], []
    for level, (feature, stride) in enumerate(zip(features, spec.strides, strict=True)):
        on_level = valid_rows
        if levels is not None:
            on_level = op.And(valid_rows, op.Equal(levels, array(np.array(level, np.int32))))
        index = op.Reshape(op.NonZero(on_level), ints(-1))
        pooled.append(
            pool_level(feature, op.Gather(flat, index), op.Gather(image_index, index), stride, spec)
        )
        rows.append(index)
        if levels is None:
            break
    return _scatter_rows(pooled, rows, flat, spec.output_size), none_open(valid)


def _image_index(rois: Value) -> Value:
    """Int64 [N * R]: the image index of each flattened RoI."""
    shape = op.Shape(rois)
    count, per_image = op.Gather(shape, scalar(0)), op.Gather(shape, scalar(1))
    images = op.Range(scalar(0), count, scalar(1))
    column = op.Unsqueeze(images, ints(1))
    grid_shape = op.Concat(op.Reshape(count, ints(1)), op.Reshape(per_image, ints(1)), axis=0)
    return op.Reshape(op.Expand(column, grid_shape), ints(-1))


def _scatter_rows(
    pooled: Sequence[Value], rows: Sequence[Value], flat: Value, output_size: int
) -> Value:
    values = op.Concat(*pooled, axis=0) if len(pooled) > 1 else pooled[0]
    index = op.Concat(*rows, axis=0) if len(rows) > 1 else rows[0]
    channels = op.Shape(pooled[0], start=1, end=2)
    shape = op.Concat(
        op.Shape(flat, start=0, end=1), channels, ints(output_size, output_size), axis=0
    )
    zeros = op.Expand(number(0.0), shape)
    return op.ScatterND(zeros, op.Unsqueeze(index, ints(1)), values)


def suppress_by_class(
    boxes: Value, valid: Value, groups: Value, num_groups: int, iou: float, stage: str
) -> tuple[Value, Value]:
    """Greedy NMS by ONNX `NonMaxSuppression`, one of its classes per group.

    The rank replaces the score, so that ties go to the first; a row that is invalid or of another
    group has score 0, which the score threshold removes.
    """
    shape = op.Shape(valid)  # [B, K]
    count = op.Gather(shape, scalar(1))
    rank = op.Cast(op.Range(count, scalar(0), scalar(-1)), to=FLOAT)
    scores = op.Unsqueeze(op.Where(valid, rank, number(0.0)), ints(1))  # [B, 1, K]
    if num_groups > 1:
        indices = array(np.arange(num_groups).reshape(1, -1, 1))
        member = op.Equal(op.Unsqueeze(groups, ints(1)), indices)  # [B, G, K]
        scores = op.Where(member, scores, number(0.0))
    selected = op.NonMaxSuppression(
        boxes,
        scores,
        op.Reshape(count, ints(1)),
        op.Reshape(number(largest_float32_not_above(iou)), ints(1)),
        op.Constant(value_floats=[0.0]),
    )  # [S, 3]: problem, group, box
    index = op.Gather(selected, ints(0, 2), axis=1)
    ones = op.Expand(op.Constant(value_ints=[1]), op.Shape(selected, start=0, end=1))
    zeros = op.Expand(op.Constant(value_ints=[0]), shape)
    keep = op.Cast(op.ScatterND(zeros, index, ones), to=BOOL)
    return keep, none_open(valid)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The translation table for `torch.onnx.export`."""
    return operator_table(pool_by_level, suppress_by_class)
