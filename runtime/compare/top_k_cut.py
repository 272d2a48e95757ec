"""Rows that enter or leave a result at its top-k cut, because of another row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from runtime.compare.limits import Excess
from runtime.compare.matching import Comparison


def explain_displaced(
    excesses: Sequence[Excess], comparison: Comparison, top_k: int
) -> list[Excess]:
    """Explain unmatched rows at the end of a full result by the rows that displaced them.

    When a near tie adds a row to a result of D rows, its last row is displaced.

    1. Only a result of `top_k` rows displaces anything.
    2. Each unmatched row of one side with a near tie explains one row of the other side: the
       lowest-scored ones that are unmatched, and only with a lower score.

    Args:
        excesses: of one image, with their own near ties.
        comparison: of the same image.
        top_k: detections per image, D.
    """
    explained = list(excesses)
    for side in ("reference", "candidate"):
        result = comparison.reference if side == "reference" else comparison.candidate
        if len(result) < top_k:
            continue
        displacing = [
            e for e in explained if e.quantity == "unmatched" and e.side != side and e.near_tie
        ]
        tail = set(np.argsort(result.scores, kind="stable")[: len(displacing)].tolist())
        for index, excess in enumerate(explained):
            is_tail = excess.quantity == "unmatched" and excess.side == side and excess.row in tail
            above = next((e for e in displacing if e.got >= excess.got), None)
            if is_tail and not excess.near_tie and above is not None:
                displacing.remove(above)
                line = f"last of {top_k} rows, displaced by {above.side} row {above.row}"
                explained[index] = replace(excess, near_tie=line)
    return explained


def require_full(
    excesses: Sequence[Excess], comparison: Comparison, top_k: int, survivors: int
) -> list[Excess]:
    """Leave the rows unexplained that a candidate lacks although others would take their places.

    A near tie at the top-k cut replaces a row by another one; it never shortens the result. Each
    lost row may be one survivor fewer.

    Args:
        excesses: of one image, with their near ties.
        comparison: of the same image.
        top_k: detections per image.
        survivors: boxes that NMS keeps in the eager run under any noise, before the cut.
    """
    lost = [e for e in excesses if e.quantity == "unmatched" and e.side == "reference"]
    missing = max(0, min(top_k, survivors - len(lost)) - len(comparison.candidate))
    missed = sorted(lost, key=lambda e: e.got)[:missing]
    return [replace(e, near_tie="") if e in missed else e for e in excesses]
