"""Constants, types and small operations that the lowerings share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxscript import opset18

from model.errors import ExportError
from model.native.options import even_size

# onnxscript declares its operators for Python constants; while tracing they accept traced values.
Value = Any
op: Any = opset18

FLOAT, FLOAT16, INT32, INT64, BOOL = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.BOOL,
)


def ints(*values: int) -> Value:
    """Int64 [n], for shapes and axes."""
    return op.Constant(value_ints=list(values))


def number(value: float) -> Value:
    """A float32 scalar."""
    return op.Constant(value_float=float(value))


def scalar(value: int) -> Value:
    """An int64 scalar."""
    return array(np.array(value, np.int64))


def array(values: npt.NDArray[Any]) -> Value:
    """A constant with the array's own type."""
    return op.Constant(value=onnx.numpy_helper.from_array(values))


def cut(value: Value, length: int, at_most: int, axis: int) -> list[tuple[Value, int]]:
    """Split an axis into as few pieces as possible; returns each piece with its length.

    All pieces have the same length but the last, which may be shorter, as in ONNX's Split.
    """
    size = even_size(length, at_most)
    count = -(-length // size)
    if count == 1:
        return [(value, length)]
    pieces = op.Split(value, num_outputs=count, axis=axis)
    return [(piece, min(size, length - i * size)) for i, piece in enumerate(pieces)]


def none_open(valid: Value) -> Value:
    """Int32 [B] zeros for bool [B, K]: no row is open."""
    zero = op.Cast(op.Constant(value_ints=[0]), to=INT32)
    return op.Expand(zero, op.Shape(valid, start=0, end=1))


def choose_level(rois: Value, areas: Sequence[float]) -> Value:
    """Int32 [N, R]: the pyramid level of each RoI of float32 [N, R, 4].

    `areas` are the smallest areas of the levels but the finest, see `model.native.level_rule`.
    """
    x0, y0, x1, y1 = op.Split(rois, num_outputs=4, axis=2)  # [N, R, 1]
    area = op.Mul(op.Sub(x1, x0), op.Sub(y1, y0))
    reached = op.GreaterOrEqual(area, array(np.array(areas, np.float32)))  # [N, R, L - 1]
    if len(areas) == 1:
        return op.Cast(op.Squeeze(reached, ints(2)), to=INT32)
    level = op.ReduceSum(op.Cast(reached, to=FLOAT), ints(2), keepdims=0)
    return op.Cast(level, to=INT32)


def divide_integers(self: Value, other: Value, rounding_mode: str | None = None) -> Value:
    """`aten::div` of integers with a rounding mode: ONNX's integer Div truncates.

    Raises:
        ExportError: any other rounding mode; the network has none.
    """
    if rounding_mode != "trunc":
        raise ExportError(f"division: expected rounding_mode='trunc', got {rounding_mode!r}")
    return op.Div(self, other if not isinstance(other, int) else scalar(other))
