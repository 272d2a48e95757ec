"""The operations of `model.pooling.arithmetic` as nodes of the traced graph."""

# The protocol documents each operation.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.lowering.values import Value, array, ints, number, op
from model.pooling.arithmetic import Numbers


class GraphArithmetic:
    """`model.pooling.arithmetic.Arithmetic` on traced values, which the tracer gives + - * /."""

    def numbers(self, values: Numbers) -> Value:
        return array(np.array(values, np.float32))

    def floor(self, a: Value) -> Value:
        return op.Floor(a)

    def ceil(self, a: Value) -> Value:
        return op.Ceil(a)

    def absolute(self, a: Value) -> Value:
        return op.Abs(a)

    def minimum(self, a: Value, b: Value | float) -> Value:
        return op.Min(a, _value(b))

    def maximum(self, a: Value, b: Value | float) -> Value:
        return op.Max(a, _value(b))

    def largest(self, a: Value, axis: int) -> Value:
        return op.ReduceMax(a, ints(axis), keepdims=1)

    def where(self, condition: Value, a: Value | float, b: Value | float) -> Value:
        return op.Where(condition, _value(a), _value(b))

    def either(self, a: Value, b: Value) -> Value:
        return op.Or(a, b)

    def both(self, a: Value, b: Value) -> Value:
        return op.And(a, b)

    def invert(self, a: Value) -> Value:
        return op.Not(a)

    def split(self, a: Value, count: int, axis: int) -> Sequence[Value]:
        parts: Sequence[Value] = op.Split(a, num_outputs=count, axis=axis)
        return parts

    def join(self, parts: Sequence[Value], axis: int) -> Value:
        return op.Concat(*parts, axis=axis)

    def unsqueeze(self, a: Value, *axes: int) -> Value:
        return op.Unsqueeze(a, ints(*axes))

    def squeeze_last(self, a: Value) -> Value:
        return op.Squeeze(a, ints(-1))


def _value(a: Value | float) -> Value:
    return number(a) if isinstance(a, int | float) else a


GRAPH = GraphArithmetic()
