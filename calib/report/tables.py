"""Evaluation rows as aligned text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from calib.evaluation.measure import ApChange, EvaluationRow
from runtime.cli.console import aligned, printable

_HEAD = ("", "box AP", "box AP50", "mask AP", "mask AP50", "MB", "s/photo")
# Longer file names are cut; `quantize.json` has them complete.
_MOST_LETTERS = 40
_TITLES = {"bbox": "box AP", "segm": "mask AP"}


def agreement_table(rows: Sequence[EvaluationRow]) -> list[str]:
    """Agreement AP in points, size, time, and the worst photo with the lower of its two APs.

    Returns:
        lines of aligned text, none without rows; without masks, no columns for them.
    """
    cells = [_HEAD, *map(_cells, rows)]
    names = ["  worst photo (its lower AP)", *(f"  {_worst(row)}" for row in rows)]
    lines = aligned(_without_empty_columns(cells)) if rows else []
    return [f"{line}{name}" for line, name in zip(lines, names, strict=False)]


def _cells(row: EvaluationRow) -> Sequence[str]:
    scores = row.scores
    masks = ("" if ap is None else f"{ap:.1f}" for ap in (scores.mask, scores.mask50))
    size, time = f"{row.size_bytes / 1e6:.1f}", f"{row.seconds:.2f}"
    return (row.title, f"{scores.box:.1f}", f"{scores.box50:.1f}", *masks, size, time)


def _worst(row: EvaluationRow) -> str:
    name = printable(row.worst.name)
    short = name if len(name) <= _MOST_LETTERS else name[: _MOST_LETTERS - 1] + "…"
    return f"{short} ({row.worst_scores.lowest:.1f})"


def change_table(rows: Sequence[EvaluationRow]) -> list[str]:
    """COCO AP in points, its change from the reference's, and that change's 95 % interval.

    Returns:
        lines of aligned text, none without annotations.
    """
    kinds = [kind for kind in _TITLES if any(_change(row, kind) for row in rows)]
    head = ["", *(f"COCO {_TITLES[kind]} (change, 95 % interval)" for kind in kinds)]
    lines = [[row.title, *(_change(row, kind) for kind in kinds)] for row in rows]
    return aligned([head, *lines]) if kinds else []


def _change(row: EvaluationRow, kind: str) -> str:
    return "".join(_text(change) for change in row.changes if change.kind == kind)


def _text(change: ApChange) -> str:
    if math.isnan(change.ap):
        return "no ground truth"
    return f"{change.ap:.2f} ({change.change:+.2f}, {change.low:+.2f} to {change.high:+.2f})"


def _without_empty_columns(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """Remove columns without text below the head."""
    columns = list(zip(*cells, strict=True))
    kept = [i for i, (_, *below) in enumerate(columns) if any(below)]
    return [[row[i] for i in kept] for row in cells]
