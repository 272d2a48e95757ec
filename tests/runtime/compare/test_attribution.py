"""A near tie explains its own row, and nothing explains a defect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import ArrayLike

from model.spec import ModelSpec
from runtime.compare.attribution import EagerTrace, explain, find_borderline
from runtime.compare.limits import FP32_ONNX, Verdict, check
from runtime.compare.matching import compare
from runtime.detections import Detections
from tests.runtime.compare.scenes import (
    SPEC,
    added,
    benign_trace,
    detections,
    dropped,
    flipped,
    relabelled,
    rows_of,
    scene,
    shifted,
)

FAR = [200.0, 150.0, 260.0, 210.0]


def _check(reference: Detections, candidate: Detections, trace: EagerTrace | None) -> Verdict:
    comparison = compare(reference, candidate, "a")
    return explain(check([comparison]), [comparison], lambda _: trace)


def _trace(
    boxes: ArrayLike = (),
    scores: ArrayLike = (),
    labels: ArrayLike = (),
    rpn_boxes: ArrayLike = (),
    rpn_scores: ArrayLike = (),
    proposals: ArrayLike = (),
    spec: ModelSpec = SPEC,
) -> EagerTrace:
    return EagerTrace(
        spec=spec,
        canvas_scale_xy=(1.0, 1.0),
        rpn_boxes=np.asarray(rpn_boxes, dtype=np.float32).reshape(-1, 4),
        rpn_scores=np.asarray(rpn_scores, dtype=np.float32),
        rpn_levels=np.zeros(np.size(rpn_scores), dtype=np.int64),
        proposals=np.asarray(proposals, dtype=np.float32).reshape(-1, 4),
        candidate_boxes=np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        candidate_scores=np.asarray(scores, dtype=np.float32),
        candidate_labels=np.asarray(labels, dtype=np.int64),
    )


def test_negative_controls_fail(subtests: pytest.Subtests) -> None:
    for corrupt, row in product([shifted, relabelled, dropped, added, flipped], range(12)):
        with subtests.test(corrupt=corrupt, row=row):
            result = scene()
            verdict = _check(result, corrupt(result, row), benign_trace(result))
            assert verdict.excesses
            assert verdict.unexplained_rows >= 1
            assert verdict.near_tie_rows == 0
            assert not verdict.passed


def test_the_worked_example() -> None:
    result = detections([[0, 0, 100, 50], [0, 0, 100, 100.00006]], [0.9, 0.8], [1, 1])
    verdict = _check(result, dropped(result, 1), benign_trace(result))
    assert str(verdict.excesses[0]).endswith(
        "near tie: NMS IoU 0.499999695 is 3.1e-07 from 0.5 (epsilon 1e-05) at candidate 0 and 1"
    )
    assert verdict.passed


def test_a_trace_is_needed_only_for_an_excess() -> None:
    result = scene()
    assert _check(result, dropped(result), None).unexplained_rows == 1
    result, asked = scene(), []
    comparisons = [compare(result, result, "a"), compare(result, dropped(result), "b")]

    def trace_of(image: str) -> EagerTrace:
        asked.append(image)
        return benign_trace(result)

    explain(check(comparisons), comparisons, trace_of)
    assert asked == ["b"]
    borderline = find_borderline(benign_trace(scene()), FP32_ONNX)
    assert not borderline.proposals.undecided.any()
    assert not borderline.detections.undecided.any()
    assert borderline.levels == ()


def test_score_at_the_threshold_explains_its_own_row(subtests: pytest.Subtests) -> None:
    for case, row, explained in [("its own", 11, True), ("another row's", 4, False)]:
        with subtests.test(case):
            result = scene()
            scores = result.scores.copy()
            scores[11] = 0.0500001
            result = replace(result, scores=scores)
            verdict = _check(result, dropped(result, row), benign_trace(result))
            assert [bool(e.near_tie) for e in verdict.excesses] == [explained]
            if explained:
                assert verdict.excesses[0].near_tie.startswith("score 0.0500001")
                assert "from 0.05 (epsilon 2.9e-06)" in verdict.excesses[0].near_tie


@pytest.mark.parametrize(
    ("row", "explained"),
    [pytest.param(11, True, id="its own"), pytest.param(4, False, id="another row's")],
)
def test_minimum_size_explains_its_own_row(row: int, explained: bool) -> None:
    result = scene()
    boxes = result.boxes.copy()
    boxes[11] = [0.0, 200.0, 0.0101, 230.0]
    result = replace(result, boxes=boxes)
    verdict = _check(result, dropped(result, row), benign_trace(result))
    assert [e.near_tie.startswith("box side 0.010") for e in verdict.excesses] == [explained]


# Two boxes of IoU 0.5 in both of which NMS at 0.5 is undecided about the second.
TIED = [[10.0, 10.0, 60.0, 60.0], [10.0, 10.0, 110.0, 60.0]]


@pytest.mark.parametrize(
    ("row", "explained"),
    [pytest.param(1, True, id="the tied row"), pytest.param(2, False, id="a row elsewhere")],
)
def test_nms_tie_explains_only_the_row_that_depends_on_it(row: int, explained: bool) -> None:
    result = detections([*TIED, FAR], [0.9, 0.8, 0.7], [1, 1, 1])
    trace = _trace(result.boxes, result.scores, result.labels)
    verdict = _check(result, dropped(result, row), trace)
    assert [e.near_tie.startswith("NMS IoU 0.5 is 0") for e in verdict.excesses] == [explained]


def test_nms_ties_that_explain_nothing() -> None:
    result = detections(TIED, [0.9, 0.8], [1, 2])
    trace = _trace(result.boxes, result.scores, result.labels)
    assert _check(result, dropped(result, 1), trace).unexplained_rows == 1
    result = detections([*TIED, FAR], [0.9, 0.8, 0.7], [1, 1, 1])
    trace = _trace(result.boxes, result.scores, result.labels)
    assert _check(result, shifted(result, 1), trace).unexplained_rows == 1


def test_tied_scores_explain_the_other_choice() -> None:
    one, other = [10.0, 10.0, 60.0, 60.0], [10.0, 10.0, 62.0, 60.0]
    trace = _trace([one, other], [0.8, 0.8], [1, 1])
    verdict = _check(detections(one, [0.8], [1]), detections(other, [0.8], [1]), trace)
    assert [e.quantity for e in verdict.excesses] == ["box_px"]
    assert verdict.excesses[0].near_tie.startswith("score lead 0 is 0 from 0")


def test_tie_at_the_top_k_cut_explains_both_rows() -> None:
    spec = replace(SPEC, box=replace(SPEC.box, detections=2))
    boxes = [[0.0, 0, 40, 40], [100.0, 0, 140, 40], [200.0, 0, 240, 40]]
    all_rows = detections(boxes, [0.9, 0.5, 0.5], [1, 1, 1])
    trace = _trace(all_rows.boxes, all_rows.scores, all_rows.labels, spec=spec)
    swapped = _check(rows_of(all_rows, [0, 1]), rows_of(all_rows, [0, 2]), trace)
    assert [e.near_tie.startswith("lowest rank 3") for e in swapped.excesses] == [True, True]
    lost = _check(rows_of(all_rows, [0, 1]), rows_of(all_rows, [1, 2]), trace)
    assert [bool(e.near_tie) for e in lost.excesses] == [False, True]
    # A cut takes rows away; it changes none.
    kept = rows_of(all_rows, [0, 1])
    assert _check(kept, shifted(kept, 1), trace).unexplained_rows == 1


@pytest.mark.parametrize("corrupt", [shifted, relabelled, dropped])
def test_proposal_tie_explains_rows_that_overlap_it(
    corrupt: Callable[[Detections, int], Detections], subtests: pytest.Subtests
) -> None:
    for case, row, explained in [("at its place", 0, True), ("elsewhere", 1, False)]:
        with subtests.test(case):
            result = detections([[10.0, 10, 78, 60], FAR], [0.9, 0.8], [1, 1])
            # IoU 0.7 of the first two, the limit of the RPN's NMS.
            rpn = [[10.0, 10, 80, 60], [10.0, 10, 110, 60], FAR]
            trace = _trace(result.boxes, result.scores, result.labels, rpn, [0.9, 0.8, 0.7])
            verdict = _check(result, corrupt(result, row), trace)
            assert {e.near_tie.startswith("NMS IoU 0.7") for e in verdict.excesses} == {explained}


def test_the_cut_before_the_rpn_nms(subtests: pytest.Subtests) -> None:
    for case, last_score, explained in [("tied", 0.01, True), ("clear", 0.02, False)]:
        with subtests.test(case):
            spec = replace(SPEC, rpn=replace(SPEC.rpn, pre_nms=3))
            result = detections([[10.0, 10, 60, 60], FAR], [0.9, 0.8], [1, 1])
            rpn = [[100.0, 10, 150, 60], [10.0, 10, 60, 60], FAR]
            scores = [0.9, last_score, 0.01]
            trace = _trace(result.boxes, result.scores, result.labels, rpn, scores, spec=spec)
            verdict = _check(result, dropped(result, 0), trace)
            assert [
                e.near_tie.startswith("score at its level's cut") for e in verdict.excesses
            ] == [explained]


def test_level_rule_explains_rows_of_its_proposal(subtests: pytest.Subtests) -> None:
    for case, side_px, row, explained in [
        ("at a boundary", 112.0, 0, True),
        ("another row", 112.0, 1, False),
        ("off the boundary", 113.0, 0, False),
    ]:
        with subtests.test(case):
            result = detections([[10.0, 10, 120, 120], FAR], [0.9, 0.8], [1, 1])
            proposals = [[8, 8, 8 + side_px, 8 + side_px], FAR]
            trace = _trace(result.boxes, result.scores, result.labels, proposals=proposals)
            verdict = _check(result, shifted(result, row), trace)
            assert [e.near_tie.startswith("level rule 3") for e in verdict.excesses] == [explained]


def test_boxes_are_compared_on_the_canvas() -> None:
    result = detections([[20, 40, 156, 240]], [0.9], [1])
    rpn = [[10, 10, 80, 60], [10, 10, 110, 60]]
    trace = _trace(rpn_boxes=rpn, rpn_scores=[0.9, 0.8])
    far = _check(result, dropped(result, 0), trace)
    near = _check(result, dropped(result, 0), replace(trace, canvas_scale_xy=(2.0, 4.0)))
    assert (far.unexplained_rows, near.unexplained_rows) == (1, 0)


def test_traces_that_are_refused() -> None:
    trace = benign_trace(scene())
    wrong = replace(trace, rpn_kept=np.zeros(12, dtype=np.bool_))
    with pytest.raises(ValueError, match="rpn_kept contradicts the spec"):
        find_borderline(wrong, FP32_ONNX)
    with pytest.raises(ValueError, match=r"expected rpn_levels \(12,\), got \(11,\)"):
        replace(trace, rpn_levels=trace.rpn_levels[1:])
