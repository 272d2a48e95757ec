"""Rows at the end of a full result that enter or leave because of another row.

A result holds at most D rows. When a near tie adds a row above, the last row is displaced; the
same near tie explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from runtime.compare.limits import Excess, Side
from runtime.compare.matching import Comparison

_OTHER: dict[Side, Side] = {"reference": "candidate", "candidate": "reference"}


def explain_displaced(
    excesses: Sequence[Excess], comparison: Comparison, top_k: int
) -> list[Excess]:
    """Explain unmatched rows at the end of a full result by the rows that displaced them.

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
        displacing = [e for e in explained if _displaces(e, _OTHER[side])]
        tail = set(np.argsort(result.scores, kind="stable")[: len(displacing)].tolist())
        for index, excess in enumerate(explained):
            is_tail = excess.quantity == "unmatched" and excess.side == side and excess.row in tail
            above = next((e for e in displacing if e.got >= excess.got), None)
            if is_tail and not excess.near_tie and above is not None:
                displacing.remove(above)
                line = f"last of {top_k} rows, displaced by {above.side} row {above.row}"
                explained[index] = replace(excess, near_tie=line)
    return explained


def _displaces(excess: Excess, side: Side) -> bool:
    return excess.quantity == "unmatched" and excess.side == side and bool(excess.near_tie)
