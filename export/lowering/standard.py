"""The `standard` lowering: ONNX `RoiAlign` per pyramid level and ONNX `NonMaxSuppression`.

For ONNX Runtime and OpenVINO; batch, height and width may be dynamic. Opset 18: RoiAlign of
opset 22 has no kernel in ONNX Runtime 1.31.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset18

# onnxscript types its operators for Python constants; while tracing they take traced values.
Value = Any
op: Any = opset18

FLOAT, INT32, INT64, BOOL = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.BOOL,
)


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))


def _float(value: float) -> Value:
    return op.Constant(value_float=float(value))


def _scalar(value: int) -> Value:
    return op.Constant(value=onnx.numpy_helper.from_array(np.array(value, np.int64)))


def lower_pyramid_pool(
    features: Sequence[Value],
    rois: Value,
    valid: Value,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_size: float,
    canonical_level: int,
    inner_eps: float,
    outer_eps: float,
) -> Value:
    """Route every valid row to its level, pool there, and put the rows back in their places.

    The meaning of the arguments is `model.ops.pyramid_pool`'s.
    """
    flat = op.Reshape(rois, _ints(-1, 4))
    image_index = _image_index(rois)
    wanted = op.Reshape(valid, _ints(-1))
    levels = _levels(flat, strides, canonical_size, canonical_level, inner_eps, outer_eps)
    pooled, rows = [], []
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        here = wanted if levels is None else op.And(wanted, op.Equal(levels, _scalar(level)))
        index = op.Reshape(op.NonZero(here), _ints(-1))
        pooled.append(
            op.RoiAlign(
                feature,
                op.Gather(flat, index),
                op.Gather(image_index, index),
                coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
                mode="avg",
                output_height=output_size,
                output_width=output_size,
                sampling_ratio=max(sampling_ratio, 0),
                spatial_scale=1.0 / stride,
            )
        )
        rows.append(index)
        if levels is None:
            break
    return _scatter_rows(pooled, rows, flat, output_size)


def _image_index(rois: Value) -> Value:
    """Int64 [N * R]: which image each flattened RoI belongs to."""
    shape = op.Shape(rois)
    count, per_image = op.Gather(shape, _scalar(0)), op.Gather(shape, _scalar(1))
    images = op.Range(_scalar(0), count, _scalar(1))
    column = op.Unsqueeze(images, _ints(1))
    grid_shape = op.Concat(op.Reshape(count, _ints(1)), op.Reshape(per_image, _ints(1)), axis=0)
    return op.Reshape(op.Expand(column, grid_shape), _ints(-1))


def _levels(
    rois: Value,
    strides: Sequence[int],
    canonical_size: float,
    canonical_level: int,
    inner_eps: float,
    outer_eps: float,
) -> Value | None:
    """Int64 [K] level of each RoI, or None where there is no choice."""
    if strides[0] == strides[-1]:
        return None
    finest, coarsest = strides[0].bit_length() - 1, strides[-1].bit_length() - 1
    x0, y0, x1, y1 = op.Split(rois, num_outputs=4, axis=1)
    area = op.Squeeze(op.Mul(op.Sub(x1, x0), op.Sub(y1, y0)), _ints(1))
    relative = op.Add(op.Div(op.Sqrt(area), _float(canonical_size)), _float(inner_eps))
    # An empty RoI has area 0; log(0) is -inf, whose cast to an integer is undefined.
    relative = op.Max(relative, _float(2.0**-20))
    log2 = op.Mul(op.Log(relative), _float(1.0 / math.log(2.0)))
    level = op.Floor(op.Add(op.Add(log2, _float(canonical_level)), _float(outer_eps)))
    level = op.Clip(level, _float(finest), _float(coarsest))
    return op.Cast(op.Sub(level, _float(finest)), to=INT64)


def _scatter_rows(
    pooled: Sequence[Value], rows: Sequence[Value], flat: Value, output_size: int
) -> Value:
    together = op.Concat(*pooled, axis=0) if len(pooled) > 1 else pooled[0]
    index = op.Concat(*rows, axis=0) if len(rows) > 1 else rows[0]
    channels = op.Shape(pooled[0], start=1, end=2)
    shape = op.Concat(
        op.Shape(flat, start=0, end=1), channels, _ints(output_size, output_size), axis=0
    )
    zeros = op.Expand(_float(0.0), shape)
    return op.ScatterND(zeros, op.Unsqueeze(index, _ints(1)), together)


def lower_nms_keep(
    boxes: Value, valid: Value, groups: Value, num_groups: int, iou: float
) -> tuple[Value, Value]:
    """Greedy NMS by ONNX `NonMaxSuppression`, one of its classes per group.

    Rank stands in for the score, so that order alone decides and ties go to the first; a row
    that is not valid, or not of the group, has score 0, which the threshold leaves out.
    """
    shape = op.Shape(valid)  # [B, K]
    count = op.Gather(shape, _scalar(1))
    rank = op.Cast(op.Range(count, _scalar(0), _scalar(-1)), to=FLOAT)
    scores = op.Unsqueeze(op.Where(valid, rank, _float(0.0)), _ints(1))  # [B, 1, K]
    if num_groups > 1:
        names = op.Constant(
            value=onnx.numpy_helper.from_array(np.arange(num_groups).reshape(1, -1, 1))
        )
        member = op.Equal(op.Unsqueeze(groups, _ints(1)), names)  # [B, G, K]
        scores = op.Where(member, scores, _float(0.0))
    selected = op.NonMaxSuppression(
        boxes,
        scores,
        op.Reshape(count, _ints(1)),
        op.Reshape(_float(largest_float32_not_above(iou)), _ints(1)),
        op.Constant(value_floats=[0.0]),
    )  # [S, 3]: problem, group, box
    place = op.Gather(selected, _ints(0, 2), axis=1)
    ones = op.Expand(op.Constant(value_ints=[1]), op.Shape(selected, start=0, end=1))
    zeros = op.Expand(op.Constant(value_ints=[0]), shape)
    keep = op.Cast(op.ScatterND(zeros, place, ones), to=BOOL)
    undecided = op.Expand(
        op.Cast(op.Constant(value_ints=[0]), to=INT32), op.Shape(valid, start=0, end=1)
    )
    return keep, undecided


def largest_float32_not_above(value: float) -> float:
    """The float32 that compares with float32 IoUs as the float64 `value` does.

    torchvision compares a float32 IoU with a float64 limit; 0.3 rounded up to float32 would
    keep a box that torchvision removes.
    """
    rounded = np.float32(value)
    if float(rounded) > value:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return float(rounded)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table that `torch.onnx.export` takes for this lowering."""
    return {
        torch.ops.maskrcnn.pyramid_pool.default: lower_pyramid_pool,
        torch.ops.maskrcnn.nms_keep.default: lower_nms_keep,
    }
