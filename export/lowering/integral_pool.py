"""PrRoIPool of the `standard` lowering: for each RoI two small matrix products.

The weights are those of `model.pooling.prroi_pool`, but for a bin's pieces, on which float32 is
precise however small the bin is. A `Scan` over the RoIs keeps the memory to one RoI's cells.

Legend: R RoIs, C channels, P bins along an axis, L cells along an axis.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.lowering.arithmetic import GRAPH
from export.lowering.values import FLOAT, INT64, Value, ints, number, op

_ALL = 2**31 - 1


def pool_integral(feature: Value, image: Value, start: Value, sides: Value, size: int) -> Value:
    """Float32 [R, C, P, P] of float32 [N, C, H, W]; corner and sides float32 [R, 2] in cells."""
    # ONNX Runtime's Scan refuses to make no turn at all: an empty RoI goes first, and is dropped.
    nothing = GRAPH.numbers([[0.0, 0.0]])
    start, sides = (op.Concat(nothing, each, axis=0) for each in (start, sides))
    image = op.Concat(ints(0), image, axis=0)
    start_x, start_y = op.Split(start, num_outputs=2, axis=1)  # [R, 1]
    side_x, side_y = op.Split(sides, num_outputs=2, axis=1)
    rows = _weights(start_y, side_y, _cells(feature, 2), size)
    columns = _weights(start_x, side_x, _cells(feature, 3), size)
    bounds = [
        _touched(start_y, side_y, _cells(feature, 2)),
        _touched(start_x, side_x, _cells(feature, 3)),
    ]
    first = op.Concat(*(low for low, _ in bounds), axis=1)  # int64 [R, 2]
    end = op.Concat(*(high for _, high in bounds), axis=1)
    across = op.Transpose(columns, perm=[0, 2, 1])  # [R, W, P]
    pooled = op.Scan(image, rows, across, first, end, body=_body(feature, size), num_scan_inputs=5)
    return op.Slice(pooled, ints(1), ints(_ALL), ints(0))


def _cells(feature: Value, axis: int) -> Value:
    """Int64 scalar."""
    return op.Gather(op.Shape(feature), op.Constant(value_int=axis))


def _weights(start: Value, side: Value, cells: Value, size: int) -> Value:
    """Float32 [R, P, L] of [R, 1]: what a cell counts in the mean over a bin.

    The hat on cell k rises over (k - 1, k) and falls over (k, k + 1). Each half meets a bin in an
    interval, whose length times the hat's value in its middle is the integral.
    """
    length = op.Unsqueeze(side / number(size), ints(2))  # [R, 1, 1]
    bins = GRAPH.numbers([[float(i)] for i in range(size)])  # [P, 1]
    begin = op.Unsqueeze(start, ints(2)) + length * bins  # [R, P, 1]
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    centre = op.Cast(op.Range(zero, cells, one), to=FLOAT)  # [L]
    divisor = op.Max(length, number(1e-30))

    def place(edge: Value) -> Value:
        """Where a hat's corner is in the bin, from 0 to 1: [R, P, L]."""
        return op.Clip((edge - begin) / divisor, number(0.0), number(1.0))

    low, middle, high = (place(centre + number(shift)) for shift in (-1.0, 0.0, 1.0))
    half = number(0.5)
    rising = begin + length * ((low + middle) * half) - (centre - number(1.0))
    falling = (centre + number(1.0)) - begin - length * ((middle + high) * half)
    weight = (middle - low) * rising + (high - middle) * falling
    return op.Where(length > number(0.0), weight, number(0.0))


def _touched(start: Value, side: Value, cells: Value) -> tuple[Value, Value]:
    """Int64 [R, 1] each: the first cell that a RoI touches and the one after the last."""
    most = op.Cast(cells, to=FLOAT)
    first = op.Clip(op.Floor(start), number(0.0), most - number(1.0))
    end = op.Max(op.Min(op.Ceil(start + side) + number(1.0), most), first + number(1.0))
    return op.Cast(first, to=INT64), op.Cast(end, to=INT64)


def _body(feature: Value, size: int) -> ir.Graph:
    """One RoI: rows [P, h] x cells [C, h, w] x columns [w, P].

    The tracer records one graph only, hence nodes made by hand; they read the map of the outer one.
    """
    integer, real = ir.DataType.INT64, ir.DataType.FLOAT
    image = _value("image", integer)
    rows, across = _value("rows", real, size, None), _value("columns", real, None, size)
    first, end = _value("first", integer, 2), _value("end", integer, 2)  # y before x
    nodes: list[ir.Node] = []

    def add(kind: str, *inputs: Value, **attributes: int) -> Value:
        nodes.append(ir.node(kind, list(inputs), attributes))
        return nodes[-1].outputs[0]

    def constant(*numbers: int) -> Value:
        tensor = ir.tensor(np.array(numbers, np.int64))
        nodes.append(ir.node("Constant", [], {"value": ir.AttrTensor("value", tensor)}))
        return nodes[-1].outputs[0]

    cells = add("Slice", add("Gather", feature, image, axis=0), first, end, constant(1, 2))
    low_y, high_y = (add("Gather", edge, constant(0), axis=0) for edge in (first, end))
    low_x, high_x = (add("Gather", edge, constant(1), axis=0) for edge in (first, end))
    down = add("Slice", rows, low_y, high_y, constant(1))
    along = add("Slice", across, low_x, high_x, constant(0))
    pooled = add("MatMul", add("MatMul", down, cells), along)
    pooled.type, pooled.shape = ir.TensorType(real), ir.Shape([None, size, size])
    return ir.Graph([image, rows, across, first, end], [pooled], nodes=nodes, name="one_roi")


def _value(name: str, kind: ir.DataType, *shape: int | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))
