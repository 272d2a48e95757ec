"""The tables of an evaluation: alignment, and columns that are left out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from calib.evaluation.agreement import Scores
from calib.evaluation.measure import ApChange, EvaluationRow
from calib.report.tables import agreement_table, change_table

LOSSY = EvaluationRow(
    "INT8+FP16 (emulated)",
    Scores(box=97.12, box50=99.96, mask=88.04, mask50=98.5),
    Path("photos/odd\x1b[31m.jpg"),
    Scores(box=90.0, box50=95.0, mask=61.26, mask50=70.0),
    seconds=0.123,
    size_bytes=11_460_000,
)
BOXES = EvaluationRow(
    "FP32", Scores(99.0, 99.5, None, None), Path("b.jpg"), Scores(80.5, 90, None, None), 10, 4e7
)


def test_numbers_are_aligned_with_their_titles() -> None:
    head, with_masks, boxes_alone = agreement_table([LOSSY, BOXES])
    titles = ("box AP", "box AP50", "mask AP", "mask AP50", "MB", "s/photo")
    ends = [head.index(f"  {title}  ") + len(title) + 2 for title in titles]
    cells = [with_masks[a:b].split()[-1] for a, b in zip([0, *ends], ends, strict=False)]
    assert cells == ["97.1", "100.0", "88.0", "98.5", "11.5", "0.12"]
    assert with_masks.startswith("INT8+FP16 (emulated)  ")
    assert boxes_alone.split() == ["FP32", "99.0", "99.5", "40.0", "10.00", "b.jpg", "(80.5)"]


def test_the_worst_photo_has_its_lower_ap_and_an_escaped_name() -> None:
    names = [line.split()[-2:] for line in agreement_table([LOSSY, BOXES])[1:]]
    assert names == [["odd\\x1b[31m.jpg", "(61.3)"], ["b.jpg", "(80.5)"]]
    worse_boxes = replace(LOSSY, worst_scores=Scores(50.0, 60.0, 70.0, 80.0))
    assert agreement_table([worse_boxes])[1].endswith("(50.0)")
    long = replace(BOXES, worst=Path(f"{'n' * 200}.jpg"))
    head, short, cut = agreement_table([BOXES, long])
    assert cut.endswith(f"{'n' * 39}… (80.5)")
    assert short == agreement_table([BOXES])[1]
    assert head == agreement_table([BOXES])[0]


def test_columns_and_tables_without_numbers_are_left_out() -> None:
    assert "mask" not in "".join(agreement_table([BOXES]))
    assert agreement_table([]) == []
    assert change_table([LOSSY, BOXES]) == []


def test_changes_of_coco_ap_have_their_interval() -> None:
    boxes = ApChange("bbox", 31.456, -0.24, -0.5, 0.126)
    masks = ApChange("segm", 28.0, 0.5, 0.25, 1.0)
    nothing = replace(masks, ap=math.nan)
    head, measured, unknown = change_table(
        [replace(LOSSY, changes=(boxes, masks)), replace(BOXES, changes=(boxes, nothing))]
    )
    first, second = "31.46 (-0.24, -0.50 to +0.13)", "28.00 (+0.50, +0.25 to +1.00)"
    titles = [f"COCO {kind} AP (change, 95 % interval)" for kind in ("box", "mask")]
    assert head.split("  ")[-2:] == titles
    assert [measured.index(first), measured.index(second)] == [
        head.index(title) + len(title) - len(first) for title in titles
    ]
    assert unknown.split("  ")[0] == "FP32"
    assert unknown.endswith("no ground truth")
    assert "mask" not in "".join(change_table([replace(BOXES, changes=(boxes,))]))
