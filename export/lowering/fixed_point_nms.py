"""`nms_keep` as rounds of a fixed-point iteration over a suppression matrix.

S[j, i] = 1 if box i precedes j and would suppress it. Greedy NMS is the only solution of
keep[j] = valid[j] and no i with keep[i] and S[j, i], because S is strictly triangular. Iterating
from keep = valid bounds it from above and below in turn; a box on which two successive rounds
agree is final. A suppression chain of L links needs L rounds; the next round changes nothing,
which certifies the result.

Values are 0 and 1 in half precision: a sum of up to 2048 ones is exact, and a larger sum stays
nonzero, which is sufficient.

Legend: B problems, K boxes, b boxes of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.lowering.values import BOOL, FLOAT, INT32, Value, array, cut, ints, number, op
from model.float32 import largest_float32_not_above


@dataclass(frozen=True, slots=True)
class _Boxes:
    """A block of boxes with coordinates, areas and groups as [B, b, 1] or as [B, 1, b]."""

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

    Boxes are processed in blocks, best first: boxes kept in earlier blocks remove boxes of the
    next block, whose own matrix is then iterated. A round reads only the block's own matrix.

    Args:
        boxes: float32 [B, K, 4] xyxy, best first.
        valid: bool [B, K].
        groups: integers [B, K].
        num_groups: 1: `groups` is ignored.
        iou: a box is removed if its IoU with a kept one is strictly greater.
        rounds: iterations per block.
        block: maximum number of boxes in a block.

    Returns:
        keep, bool [B, K]; open, int32 [B]: the number of boxes that the last round changed, plus
        all boxes of later blocks.
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
        ranks = range(start, start + size)
        rows = _boxes(piece, group, ranks, axis=2)
        for earlier, keep in zip(columns, kept, strict=True):
            candidates = _remove(candidates, _removals(rows, earlier, iou, False), keep)
        columns.append(_boxes(piece, group, ranks, axis=1))
        keep, changed = _iterate(candidates, _removals(rows, columns[-1], iou, True), rounds)
        kept.append(keep)
        if undecided:  # a block after an open one is open as a whole
            changed = op.Where(op.Greater(undecided[-1], number(0.0)), number(size), changed)
        undecided.append(changed)
        start += size
    keep = op.Concat(*kept, axis=1) if len(kept) > 1 else kept[0]
    total_open = op.Sum(*undecided) if len(kept) > 1 else undecided[0]
    return op.Cast(op.Squeeze(keep, ints(2)), to=BOOL), op.Cast(total_open, to=INT32)


def _half(value: float) -> Value:
    return array(np.array(value, np.float16))


def _boxes(block: Value, group: Value | None, ranks: range, axis: int) -> _Boxes:
    """Split float32 [B, b, 4] boxes into rows [B, b, 1] (axis 2) or columns [B, 1, b] (axis 1)."""
    if axis == 1:
        block = op.Transpose(block, perm=[0, 2, 1])
    x0, y0, x1, y1 = op.Split(block, num_outputs=4, axis=axis)
    group = None if group is None else op.Unsqueeze(group, ints(axis))
    area = op.Mul(op.Sub(x1, x0), op.Sub(y1, y0))
    rank = array(np.expand_dims(np.array(ranks, np.float32), (0, axis)))
    return _Boxes(x0, y0, x1, y1, area, group, rank)


def _removals(rows: _Boxes, columns: _Boxes, iou: float, ordered: bool) -> Value:
    """Half [B, b, b']: -1 where the column's box would suppress the row's, else 0.

    IoU has torchvision's order of operations, so that float32 agrees; NaN (0 / 0, two empty boxes)
    is not greater than anything.
    """
    width = op.Relu(op.Sub(op.Min(columns.x1, rows.x1), op.Max(columns.x0, rows.x0)))
    height = op.Relu(op.Sub(op.Min(columns.y1, rows.y1), op.Max(columns.y0, rows.y0)))
    intersection = op.Mul(width, height)
    union = op.Sub(op.Add(columns.area, rows.area), intersection)
    overlaps = op.Greater(op.Div(intersection, union), number(largest_float32_not_above(iou)))
    if ordered:
        overlaps = op.And(overlaps, op.Less(columns.rank, rows.rank))
    if rows.group is not None:
        overlaps = op.And(overlaps, op.Equal(columns.group, rows.group))
    return op.Where(overlaps, _half(-1), _half(0))


def _remove(candidates: Value, removals: Value, keep: Value) -> Value:
    """1 for candidates that no kept box removes: relu(1 - the number that remove it)."""
    return op.Relu(op.Add(candidates, op.MatMul(removals, keep)))


def _iterate(candidates: Value, removals: Value, rounds: int) -> tuple[Value, Value]:
    """The last round, half [B, b, 1], and the number of boxes that it changed, float32 [B]."""
    before, keep = candidates, candidates
    for _ in range(rounds):
        before, keep = keep, _remove(candidates, removals, keep)
    changed = op.Abs(op.Sub(op.Cast(keep, to=FLOAT), op.Cast(before, to=FLOAT)))
    return keep, op.ReduceSum(changed, ints(1, 2), keepdims=0)
