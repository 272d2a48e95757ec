"""The proof's lines: what stands where, and which columns stand at all."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from calib.evaluation import ApChange, Proof
from calib.judge import Scores
from calib.proof_table import proof_table
from calib.proofs import Proofs

EXACT = Proof("FP32", Scores(100, 100, 100, 100), Path("a.jpg"), Scores(100, 100, 100, 100), 1, 4e7)
LOSSY = Proof(
    "INT8+FP16 (emulated)",
    Scores(97.12, 99.96, 88.0, 98.0),
    Path("photos/odd\x1b[31m.jpg"),
    Scores(90.0, 95.0, 61.25, 70.0),
    0.123,
    11_460_000,
)


def _table(*rows: Proof) -> list[str]:
    return proof_table(Proofs(rows, {}, photos=3, sure=20))


def test_each_number_stands_under_its_title() -> None:
    head, exact, lossy = _table(EXACT, LOSSY)
    assert head.split("  ")[-1].strip() == "worst photo"
    for title, told in {
        "box AP": "97.1",
        "mask AP": "88.0",
        "MB": "11.5",
        "s/photo": "0.12",
    }.items():
        end = head.index(title) + len(title)
        assert lossy[:end].endswith(told)
        assert not exact[:end].endswith(told)
    assert lossy.startswith("INT8+FP16 (emulated)  ")
    # The lower of boxes and masks; and no name reaches the terminal as it is.
    assert lossy.endswith("odd\\x1b[31m.jpg (61.2)")


def test_columns_that_nothing_fills_are_left_out() -> None:
    boxes = replace(EXACT, scores=Scores(100, 100, None, None))
    assert "mask" not in "".join(_table(boxes))
    assert "COCO" not in "".join(_table(EXACT, LOSSY))


def test_changes_of_coco_ap_have_their_interval() -> None:
    found = ApChange("bbox", 31.456, -0.24, -0.5, 0.125)
    nothing = ApChange("segm", math.nan, math.nan, math.nan, math.nan)
    head, row = _table(replace(EXACT, changes=(found, nothing)))
    assert "COCO box AP" in head
    assert "31.46 (-0.24, -0.50 to +0.12)" in row
    assert "nothing to find" in row
