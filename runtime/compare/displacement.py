"""Rows that leave or enter at the last place because another row entered or left above them.

A result holds at most D rows. When a witnessed difference puts one more row among them, the last
one goes; it differs for the same reason, which is then its witness too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from runtime.compare.limits import Excess, Side
from runtime.compare.matching import Comparison

_OTHER: dict[Side, Side] = {"reference": "candidate", "candidate": "reference"}


def explain_displaced(
    excesses: Sequence[Excess], comparison: Comparison, quota: int
) -> list[Excess]:
    """Give unmatched rows at the end of a full result the witness of the row that pushed them.

    1. Only a result of `quota` rows pushes anything out.
    2. Each unmatched row of one side that has a witness of its own can excuse one row of the
       other side: the lowest-scored ones that are unmatched, and only with a lower score.

    Args:
        excesses: of one image, with the witnesses found so far.
        comparison: of the same image.
        quota: detections per image, D.
    """
    explained = list(excesses)
    for side in ("reference", "candidate"):
        result = comparison.reference if side == "reference" else comparison.candidate
        if len(result) < quota:
            continue
        pushers = [e for e in explained if _is_pusher(e, _OTHER[side])]
        tail = set(np.argsort(result.scores, kind="stable")[: len(pushers)].tolist())
        for index, excess in enumerate(explained):
            is_tail = excess.quantity == "unmatched" and excess.side == side and excess.row in tail
            pusher = next((p for p in pushers if p.got >= excess.got), None)
            if is_tail and not excess.witness and pusher is not None:
                pushers.remove(pusher)
                line = f"last of {quota} places, pushed out by {pusher.side} row {pusher.row}"
                explained[index] = replace(excess, witness=line)
    return explained


def _is_pusher(excess: Excess, side: Side) -> bool:
    return excess.quantity == "unmatched" and excess.side == side and bool(excess.witness)
