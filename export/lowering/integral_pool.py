"""PrRoIPool of the `standard` lowering: two small matrix products per RoI.

The weights are those of `model.pooling.prroi_pool`, computed on pieces of a bin, where float32 is
precise for any bin size. A `Scan` over the RoIs limits memory to the cells of one RoI.

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
    # ONNX Runtime's Scan cannot run zero times: an empty RoI is prepended, and dropped at the end.
    empty = GRAPH.numbers([[0.0, 0.0]])
    start, sides = (op.Concat(empty, each, axis=0) for each in (start, sides))
    image = op.Concat(ints(0), image, axis=0)
    start_x, start_y = op.Split(start, num_outputs=2, axis=1)  # [R, 1]
    side_x, side_y = op.Split(sides, num_outputs=2, axis=1)
    rows = _weights(start_y, side_y, _cells(feature, 2), size)
    columns = _weights(start_x, side_x, _cells(feature, 3), size)
    bounds = [
        _cell_range(start_y, side_y, _cells(feature, 2)),
        _cell_range(start_x, side_x, _cells(feature, 3)),
    ]
    first = op.Concat(*(low for low, _ in bounds), axis=1)  # int64 [R, 2]
    end = op.Concat(*(high for _, high in bounds), axis=1)
    columns = op.Transpose(columns, perm=[0, 2, 1])  # [R, W, P]
    pooled = op.Scan(image, rows, columns, first, end, body=_body(feature, size), num_scan_inputs=5)
    return op.Slice(pooled, ints(1), ints(_ALL), ints(0))


def _cells(feature: Value, axis: int) -> Value:
    """The size of an axis, an int64 scalar."""
    return op.Gather(op.Shape(feature), op.Constant(value_int=axis))


def _weights(start: Value, side: Value, cells: Value, size: int) -> Value:
    """Float32 [R, P, L] of [R, 1]: the weight of each cell in the mean over a bin.

    The hat function of cell k rises over (k - 1, k) and falls over (k, k + 1). The integral of each
    half over a bin is the length of their intersection times the hat's value at its midpoint.
    """
    length = op.Unsqueeze(side / number(size), ints(2))  # [R, 1, 1]
    bins = GRAPH.numbers([[float(i)] for i in range(size)])  # [P, 1]
    begin = op.Unsqueeze(start, ints(2)) + length * bins  # [R, P, 1]
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    center = op.Cast(op.Range(zero, cells, one), to=FLOAT)  # [L]
    divisor = op.Max(length, number(1e-30))

    def position(edge: Value) -> Value:
        """Position of a hat's corner in the bin, from 0 to 1: [R, P, L]."""
        return op.Clip((edge - begin) / divisor, number(0.0), number(1.0))

    low, middle, high = (position(center + number(shift)) for shift in (-1.0, 0.0, 1.0))
    half = number(0.5)
    rising = begin + length * ((low + middle) * half) - (center - number(1.0))
    falling = (center + number(1.0)) - begin - length * ((middle + high) * half)
    weight = (middle - low) * rising + (high - middle) * falling
    return op.Where(length > number(0.0), weight, number(0.0))


def _cell_range(start: Value, side: Value, cells: Value) -> tuple[Value, Value]:
    """Int64 [R, 1] each: the first cell that an RoI overlaps, and the end (exclusive)."""
    limit = op.Cast(cells, to=FLOAT)
    first = op.Clip(op.Floor(start), number(0.0), limit - number(1.0))
    end = op.Max(op.Min(op.Ceil(start + side) + number(1.0), limit), first + number(1.0))
    return op.Cast(first, to=INT64), op.Cast(end, to=INT64)


def _body(feature: Value, size: int) -> ir.Graph:
    """One RoI: rows [P, h] x cells [C, h, w] x columns [w, P].

    Built by hand, because the tracer records only one graph; it reads the outer feature map.
    """
    integer, real = ir.DataType.INT64, ir.DataType.FLOAT
    image = _value("image", integer)
    rows, columns = _value("rows", real, size, None), _value("columns", real, None, size)
    first, end = _value("first", integer, 2), _value("end", integer, 2)  # y before x
    nodes: list[ir.Node] = []

    def add(op_type: str, *inputs: Value, **attributes: int) -> Value:
        nodes.append(ir.node(op_type, list(inputs), attributes))
        return nodes[-1].outputs[0]

    def constant(*numbers: int) -> Value:
        tensor = ir.tensor(np.array(numbers, np.int64))
        nodes.append(ir.node("Constant", [], {"value": ir.AttrTensor("value", tensor)}))
        return nodes[-1].outputs[0]

    cells = add("Slice", add("Gather", feature, image, axis=0), first, end, constant(1, 2))
    low_y, high_y = (add("Gather", edge, constant(0), axis=0) for edge in (first, end))
    low_x, high_x = (add("Gather", edge, constant(1), axis=0) for edge in (first, end))
    row_weights = add("Slice", rows, low_y, high_y, constant(1))
    column_weights = add("Slice", columns, low_x, high_x, constant(0))
    pooled = add("MatMul", add("MatMul", row_weights, cells), column_weights)
    pooled.type, pooled.shape = ir.TensorType(real), ir.Shape([None, size, size])
    return ir.Graph([image, rows, columns, first, end], [pooled], nodes=nodes, name="one_roi")


def _value(name: str, dtype: ir.DataType, *shape: int | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
