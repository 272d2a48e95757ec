"""`nms_keep` as rounds of a fixed-point iteration over a suppression matrix.

S[j, i] says that box i, which comes before j, would suppress it. Greedy NMS is the one solution
of keep[j] = valid[j] and no i with keep[i] and S[j, i]: S is strictly triangular, so row by row
there is nothing to choose. Iterating from keep = valid bounds it from above and below in turn;
a box on which two successive rounds agree is decided, and exactly so. A chain of L links stands
after L rounds; the next one changes nothing, which certifies it.

Values are 0 and 1 in half precision: a sum of up to 2048 ones is exact, and a larger one is
still not zero, which is all that is asked of it.

Legend: B problems, K boxes, b boxes of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.lowering.values import (
    BOOL,
    FLOAT,
    INT32,
    Value,
    array,
    cut,
    ints,
    number,
    op,
)
from model.float32 import largest_float32_not_above


@dataclass(frozen=True, slots=True)
class _Boxes:
    """A run of boxes with coordinates, areas and groups as [B, b, 1] or as [B, 1, b]."""

    x0: Value
    y0: Value
    x1: Value
    y1: Value
    area: Value
    group: Value | None
    rank: Value


def suppress(
    boxes: Value,
    valid: Value,
    groups: Value,
    num_groups: int,
    iou: float,
    *,
    rounds: int,
    block: int,
) -> tuple[Value, Value]:
    """Greedy NMS, as `model.ops.nms_keep` defines it.

    The boxes are taken in blocks, best first: what the earlier blocks keep removes boxes from
    the next one, whose own matrix is then iterated. Every round reads a block's matrix alone.

    Args:
        boxes: float32 [B, K, 4] xyxy, best first.
        valid: bool [B, K].
        groups: integers [B, K].
        num_groups: 1 means that `groups` is not looked at.
        iou: a box goes when its IoU with a kept one is strictly greater.
        rounds: iterations per block.
        block: the most boxes of a block.

    Returns:
        keep, bool [B, K]; open, int32 [B], the boxes that the last round still changed, and all
        boxes of the blocks after one where it did.
    """
    total = int(boxes.shape[1])
    ones = op.Where(op.Unsqueeze(valid, ints(2)), _half(1), _half(0))  # [B, K, 1]
    cut_ones = cut(ones, total, block, 1)
    kept: list[Value] = []
    undecided: list[Value] = []
    columns: list[_Boxes] = []
    start = 0
    cut_groups = cut(groups, total, block, 1)
    for index, (piece, size) in enumerate(cut(boxes, total, block, 1)):
        candidates = cut_ones[index][0]
        group = cut_groups[index][0] if num_groups > 1 else None
        rows = _rows(piece, group, start, size)
        for earlier, keep in zip(columns, kept, strict=True):
            candidates = _remove(candidates, _removals(rows, earlier, iou, False), keep)
        columns.append(_columns(piece, group, start, size))
        keep, changed = _iterate(candidates, _removals(rows, columns[-1], iou, True), rounds)
        kept.append(keep)
        if undecided:  # what builds on a block that is open is open as a whole
            changed = op.Where(op.Greater(undecided[-1], number(0.0)), number(size), changed)
        undecided.append(changed)
        start += size
    together = op.Concat(*kept, axis=1) if len(kept) > 1 else kept[0]
    total_open = op.Sum(*undecided) if len(kept) > 1 else undecided[0]
    return op.Cast(op.Squeeze(together, ints(2)), to=BOOL), op.Cast(total_open, to=INT32)


def _half(value: float) -> Value:
    return array(np.array(value, np.float16))


def _rows(piece: Value, group: Value | None, start: int, size: int) -> _Boxes:
    x0, y0, x1, y1 = op.Split(piece, num_outputs=4, axis=2)  # [B, b, 1]
    named = None if group is None else op.Unsqueeze(group, ints(2))
    return _Boxes(x0, y0, x1, y1, _area(x0, y0, x1, y1), named, _rank(start, size, (-1, 1)))


def _columns(piece: Value, group: Value | None, start: int, size: int) -> _Boxes:
    x0, y0, x1, y1 = op.Split(op.Transpose(piece, perm=[0, 2, 1]), num_outputs=4, axis=1)
    named = None if group is None else op.Unsqueeze(group, ints(1))
    return _Boxes(x0, y0, x1, y1, _area(x0, y0, x1, y1), named, _rank(start, size, (1, -1)))


def _area(x0: Value, y0: Value, x1: Value, y1: Value) -> Value:
    return op.Mul(op.Sub(x1, x0), op.Sub(y1, y0))


def _rank(start: int, size: int, shape: tuple[int, int]) -> Value:
    return array(np.arange(start, start + size, dtype=np.float32).reshape(1, *shape))


def _removals(rows: _Boxes, columns: _Boxes, iou: float, ordered: bool) -> Value:
    """Half [B, b, b']: -1 where the column's box would suppress the row's, else 0.

    IoU is computed as torchvision does, operation by operation, so that float32 agrees; NaN
    (0 / 0, two empty boxes) is not greater than anything.
    """
    width = op.Relu(op.Sub(op.Min(columns.x1, rows.x1), op.Max(columns.x0, rows.x0)))
    height = op.Relu(op.Sub(op.Min(columns.y1, rows.y1), op.Max(columns.y0, rows.y0)))
    shared = op.Mul(width, height)
    union = op.Sub(op.Add(columns.area, rows.area), shared)
    meets = op.Greater(op.Div(shared, union), number(largest_float32_not_above(iou)))
    if ordered:
        meets = op.And(meets, op.Less(columns.rank, rows.rank))
    if rows.group is not None:
        meets = op.And(meets, op.Equal(columns.group, rows.group))
    return op.Where(meets, _half(-1), _half(0))


def _remove(candidates: Value, removals: Value, keep: Value) -> Value:
    """1 for the candidates that no kept box removes: relu(1 - how many remove it)."""
    return op.Relu(op.Add(candidates, op.MatMul(removals, keep)))


def _iterate(candidates: Value, removals: Value, rounds: int) -> tuple[Value, Value]:
    """The last round, half [B, b, 1], and how many boxes it changed, float32 [B]."""
    before, keep = candidates, candidates
    for _ in range(rounds):
        before, keep = keep, _remove(candidates, removals, keep)
    changed = op.Abs(op.Sub(op.Cast(keep, to=FLOAT), op.Cast(before, to=FLOAT)))
    return keep, op.ReduceSum(changed, ints(1, 2), keepdims=0)
