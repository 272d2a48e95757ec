"""The table of limits, and what counts as beyond it."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from model.errors import UsageError
from runtime.compare.limits import (
    FP32_ONNX,
    Excess,
    Limit,
    Quantity,
    Side,
    Verdict,
    check,
    mask_limits,
)
from runtime.compare.matching import compare
from tests.runtime.compare.scenes import detections, dropped, flipped, relabelled, scene, shifted


def _excess(
    row: int, quantity: Quantity = "score", side: Side = "reference", near_tie: str = ""
) -> Excess:
    return Excess("a", side, row, 0, 1, quantity, 1.0, 0.0, near_tie)


def _verdict(count: int, *excesses: Excess) -> Verdict:
    return Verdict(FP32_ONNX, 1, count, excesses, None, None, None)


def test_every_limit_has_a_reason() -> None:
    tables = (FP32_ONNX, FP32_ONNX.epsilons)
    limits = [getattr(table, f.name) for table in tables for f in fields(table)]
    entries = [limit for limit in limits if isinstance(limit, Limit)]
    assert len(entries) == 18
    assert all(entry.name and len(entry.reason) > 20 for entry in entries)


def test_equal_and_empty_results_pass() -> None:
    result = scene()
    verdict = check([compare(result, result, "a"), compare(result, result, "b")])
    assert verdict.passed
    assert (verdict.images, verdict.detections, verdict.equal_detections) == (2, 24, 24)
    assert str(verdict) == (
        "24 of 24 detections equal · score 0.0e+00 · box 0.0000 px · mask IoU 1.0000"
    )
    empty = detections(np.zeros((0, 4)), [], [])
    verdict = check([compare(empty, empty, "a")])
    assert verdict.passed
    assert str(verdict) == "0 of 0 detections equal"
    comparison = compare(result, result, "a")
    comparison.score_diff[:] = FP32_ONNX.score.value
    comparison.box_diff_px[:] = FP32_ONNX.box_px.value
    comparison.mask_iou[:] = FP32_ONNX.mask_iou.value
    assert check([comparison]).excesses == ()


@pytest.mark.parametrize("names", [[], ["a", "a"]], ids=["no image", "one name twice"])
def test_a_check_of_nothing_or_of_namesakes_is_refused(names: list[str]) -> None:
    result = scene()
    with pytest.raises(UsageError, match="each under its own name"):
        check([compare(result, result, name) for name in names])


def test_excesses_are_reported_at_their_rows() -> None:
    result = scene()
    scores = result.scores.copy()
    scores[2] += 1e-4
    worse = flipped(shifted(replace(result, scores=scores), 3), 5)
    excesses = check([compare(result, worse, "a")]).excesses
    assert [(e.quantity, e.row, e.side) for e in excesses] == [
        ("score", 2, "reference"),
        ("box_px", 3, "reference"),
        ("mask_probability", 5, "reference"),
        ("mask_iou", 5, "reference"),
    ]
    assert excesses[1].got == pytest.approx(0.05, abs=1e-4)
    assert str(excesses[1]).startswith("a: reference row 3, label 1: box_px 0.05")
    missing = check([compare(result, dropped(result, 4), "a")]).excesses
    assert [(e.quantity, e.side, e.row) for e in missing] == [("unmatched", "reference", 4)]
    swapped = check([compare(result, relabelled(result, 4), "a")]).excesses
    assert [(e.quantity, e.side, e.row) for e in swapped] == [
        ("unmatched", "reference", 4),
        ("unmatched", "candidate", 4),
    ]


def test_a_nan_is_an_excess() -> None:
    result = scene(with_masks=False)
    comparison = compare(result, result, "a")
    comparison.score_diff[1] = np.nan
    verdict = check([comparison])
    assert [e.row for e in verdict.excesses] == [1]
    assert not verdict.passed
    assert np.isnan(verdict.worst_score_diff or 0.0)


def test_small_masks_have_their_own_limit() -> None:
    assert mask_limits(np.array([0, 199, 200, 5000]), FP32_ONNX).tolist() == [
        0.99,
        0.99,
        0.999,
        0.999,
    ]


def test_verdict_counts_rows(subtests: pytest.Subtests) -> None:
    for case, near_tie, unexplained, passed in [
        ("none", 0, 0, True),
        ("half a percent from near ties", 2, 0, True),
        ("more from near ties", 3, 0, False),
        ("one unexplained", 0, 1, False),
    ]:
        with subtests.test(case):
            excesses = [_excess(row, near_tie="near") for row in range(near_tie)]
            excesses += [_excess(100 + row) for row in range(unexplained)]
            verdict = _verdict(400, *excesses)
            assert (verdict.near_tie_rows, verdict.unexplained_rows) == (near_tie, unexplained)
            assert verdict.passed is passed


def test_near_ties_are_counted_per_row() -> None:
    half = (_excess(1, "score", near_tie="near"), _excess(1, "box_px"))
    assert (_verdict(9, *half).near_tie_rows, _verdict(9, *half).unexplained_rows) == (0, 1)
    whole = (_excess(1, "score", near_tie="near"), _excess(1, "box_px", near_tie="near"))
    assert (_verdict(9, *whole).near_tie_rows, _verdict(9, *whole).unexplained_rows) == (1, 0)
    verdict = _verdict(9, _excess(9, "unmatched", side="candidate"))
    assert verdict.equal_detections == 9
    assert not verdict.passed
    # One tie changes two rows; of 50 rows the fraction alone would allow none.
    near = [_excess(row, near_tie="near") for row in range(3)]
    assert _verdict(50, *near[:2]).passed
    assert not _verdict(50, *near).passed
    assert not _verdict(50, _excess(1)).passed
