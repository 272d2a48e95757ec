"""The proof as people read it: a line for each precision, and what it lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from calib.evaluation import ApChange, Proof
from calib.proofs import Proofs
from runtime.console import aligned, printable


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    cell: Callable[[Proof], str]


def proof_table(proofs: Proofs) -> list[str]:
    """Lines of aligned text; columns that no row fills are left out.

    Agreement AP is in points, the worst photo's is the lower of boxes and masks. COCO AP has its
    change from the reference's in brackets, with the 95 % interval of that over photos.
    """
    columns = [
        _Column("box AP", lambda row: f"{row.scores.box:.1f}"),
        _Column("AP50", lambda row: f"{row.scores.box50:.1f}"),
        _Column("mask AP", lambda row: _points(row.scores.mask)),
        _Column("AP50", lambda row: _points(row.scores.mask50)),
        _Column("COCO box AP", lambda row: _change(row, "bbox")),
        _Column("COCO mask AP", lambda row: _change(row, "segm")),
        _Column("MB", lambda row: f"{row.size_bytes / 1e6:.1f}"),
        _Column("s/photo", lambda row: f"{row.seconds:.2f}"),
        _Column("worst photo", _worst),
    ]
    filled = [column for column in columns if any(column.cell(row) for row in proofs.rows)]
    head = ["", *(column.title for column in filled)]
    rows = [[row.title, *(column.cell(row) for column in filled)] for row in proofs.rows]
    return aligned([head, *rows])


def _points(ap: float | None) -> str:
    return "" if ap is None else f"{ap:.1f}"


def _change(row: Proof, kind: str) -> str:
    return "".join(_told(change) for change in row.changes if change.kind == kind)


def _told(change: ApChange) -> str:
    if math.isnan(change.ap):
        return "nothing to find"
    return f"{change.ap:.2f} ({change.change:+.2f}, {change.low:+.2f} to {change.high:+.2f})"


def _worst(row: Proof) -> str:
    return f"{printable(row.worst.name)} ({100 - row.worst_scores.loss:.1f})"
