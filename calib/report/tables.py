"""The proof as people read it: a line for each precision, and what it lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from calib.evaluation.measure import ApChange, Proof
from runtime.cli.console import aligned, printable

_HEAD = ("", "box AP", "box AP50", "mask AP", "mask AP50", "MB", "s/photo")
# A longer name of a photo is cut: `quantize.json` has it whole.
_MOST_LETTERS = 40
_KINDS = {"bbox": "box AP", "segm": "mask AP"}


def proof_table(rows: Sequence[Proof]) -> list[str]:
    """Agreement AP in points, size, time, and the worst photo with the lower of its two APs.

    Returns:
        lines of aligned text, none for no rows; where nothing has masks, there are no such columns.
    """
    cells = [_HEAD, *map(_cells, rows)]
    names = ["  worst photo (its lower AP)", *(f"  {_worst(row)}" for row in rows)]
    lines = aligned(_without_empty_columns(cells)) if rows else []
    return [f"{line}{name}" for line, name in zip(lines, names, strict=False)]


def _cells(row: Proof) -> Sequence[str]:
    found = row.scores
    points = ("" if ap is None else f"{ap:.1f}" for ap in (found.mask, found.mask50))
    size, time = f"{row.size_bytes / 1e6:.1f}", f"{row.seconds:.2f}"
    return (row.title, f"{found.box:.1f}", f"{found.box50:.1f}", *points, size, time)


def _worst(row: Proof) -> str:
    name = printable(row.worst.name)
    short = name if len(name) <= _MOST_LETTERS else name[: _MOST_LETTERS - 1] + "…"
    return f"{short} ({row.worst_scores.lowest:.1f})"


def change_table(rows: Sequence[Proof]) -> list[str]:
    """COCO AP in points, its change from the reference's, and that change's 95 % interval.

    Returns:
        lines of aligned text, none where there were no labels.
    """
    kinds = [kind for kind in _KINDS if any(_of_kind(row, kind) for row in rows)]
    head = ["", *(f"COCO {_KINDS[kind]} (change, 95 % interval)" for kind in kinds)]
    lines = [[row.title, *(_of_kind(row, kind) for kind in kinds)] for row in rows]
    return aligned([head, *lines]) if kinds else []


def _of_kind(row: Proof, kind: str) -> str:
    return "".join(_told(change) for change in row.changes if change.kind == kind)


def _told(change: ApChange) -> str:
    if math.isnan(change.ap):
        return "nothing to find"
    return f"{change.ap:.2f} ({change.change:+.2f}, {change.low:+.2f} to {change.high:+.2f})"


def _without_empty_columns(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of cells with a head, columns in which only that says something; the first one stays."""
    columns = list(zip(*cells, strict=True))
    kept = [i for i, (_, *below) in enumerate(columns) if any(below)]
    return [[row[i] for i in kept] for row in cells]
