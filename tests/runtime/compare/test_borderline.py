"""Outcomes under noise: sound against every perturbation tried, and certain away from ties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.spec import PoolerSpec
from runtime.compare.borderline import (
    Outcomes,
    class_offset_noise,
    edge_noise,
    filter_outcomes,
    level_near_ties,
    nms_outcomes,
    rank_bounds,
    select,
    suppression,
)
from runtime.compare.limits import FP32_EPSILONS, Epsilons
from tests.oracles.matching import greedy_nms

Floats = NDArray[np.float64]
LIMIT = 0.5


def _outcomes(
    boxes: Floats, scores: Floats, groups: NDArray[np.int64], epsilons: Epsilons = FP32_EPSILONS
) -> Outcomes:
    pairs = suppression(boxes, scores, groups, LIMIT, epsilons, np.zeros(len(boxes)))
    none = np.zeros(len(boxes), dtype=np.bool_)
    return nms_outcomes(pairs, none, none)


def _crowd(rng: np.random.Generator, count: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Heaps of near-square boxes, two groups, some scores tied."""
    center = rng.integers(0, 3, (count, 2)) * 100.0 + rng.normal(0, 8, (count, 2))
    half = rng.uniform(25, 35, (count, 2))
    boxes = np.concatenate((center - half, center + half), axis=1)
    return boxes, rng.choice(rng.uniform(0.1, 0.9, count), count), rng.integers(0, 2, count)


def test_without_noise_every_outcome_is_that_of_greedy_nms() -> None:
    rng = np.random.default_rng(0)
    boxes, _, groups = _crowd(rng, 80)
    scores = rng.permutation(80) / 100 + 0.1
    outcomes = _outcomes(boxes, scores, groups)
    assert not outcomes.undecided.any()
    assert (outcomes.kept == greedy_nms(boxes, scores, groups, LIMIT)).all()
    assert 0 < outcomes.kept.sum() < 80


def test_no_perturbation_within_epsilon_changes_a_certain_outcome() -> None:
    rng = np.random.default_rng(1)
    # Wide epsilons, so that many outcomes are undecided.
    coarse = replace(
        FP32_EPSILONS,
        nms_iou=replace(FP32_EPSILONS.nms_iou, value=0.02),
        score_logit=replace(FP32_EPSILONS.score_logit, value=0.1),
    )
    changed = certain = 0
    for _ in range(80):
        boxes, scores, groups = _crowd(rng, 40)
        outcomes = _outcomes(boxes, scores, groups, coarse)
        # 0.1 px on every edge of a box of 50 px or more moves an IoU by less than 0.02.
        noisy_boxes = boxes + rng.uniform(-0.1, 0.1, boxes.shape)
        logits = np.log(scores / (1 - scores)) + rng.uniform(-0.09, 0.09, scores.shape)
        now = greedy_nms(noisy_boxes, 1 / (1 + np.exp(-logits)), groups, LIMIT)
        changed += int((now != greedy_nms(boxes, scores, groups, LIMIT)).sum())
        certain += int((~outcomes.undecided).sum())
        assert now[outcomes.kept].all()
        assert not now[outcomes.dropped].any()
    assert changed > 20
    assert certain > 400


def test_undecided_outcomes_of_two_boxes(subtests: pytest.Subtests) -> None:
    for case, second, scores, undecided_rows in [
        ("IoU at the limit", [0, 0, 100, 50], [0.9, 0.8], [1]),
        ("IoU below", [0, 0, 100.1, 50], [0.9, 0.8], []),
        ("IoU above", [0, 0, 99.9, 50], [0.9, 0.8], []),
        ("equal scores", [0, 0, 60, 50], [0.8, 0.8], [0, 1]),
        ("scores apart", [0, 0, 60, 50], [0.8, 0.7999], []),
        ("equal scores, boxes apart", [100, 0, 160, 50], [0.8, 0.8], []),
    ]:
        with subtests.test(case):
            boxes = np.array([[0, 0, 50, 50], second], dtype=np.float64)
            outcomes = _outcomes(boxes, np.array(scores), np.zeros(2, dtype=np.int64))
            assert np.flatnonzero(outcomes.undecided).tolist() == undecided_rows


def test_what_certain_boxes_decide() -> None:
    # The second box is at IoU 0.5 with the third, but the first one drops it for certain.
    boxes = np.array([[0, 0, 52, 50], [0, 0, 50, 50], [0, 0, 25, 50]], dtype=np.float64)
    outcomes = _outcomes(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, dtype=np.int64))
    assert outcomes.kept.tolist() == [True, False, True]
    assert not outcomes.undecided.any()
    boxes = np.array([[0.0, 0.0, 224.0, 224.0]])
    assert not list(
        level_near_ties(boxes, PoolerSpec(strides=(16,)), np.ones(len(boxes)), "proposal")
    )
    outcomes = Outcomes(np.array([True, False, True, False]), np.array([False, False, False, True]))
    min_above, max_above = rank_bounds(outcomes, np.array([0.9, 0.8, 0.7, 0.6]), 1e-5)
    assert min_above[:3].tolist() == [0, 1, 1]
    assert max_above[:3].tolist() == [0, 1, 2]


def test_a_box_that_only_an_undecided_box_drops_is_undecided() -> None:
    boxes = np.array([[0, 0, 50, 50], [0, 0, 100, 50], [20, 0, 120, 50]], dtype=np.float64)
    scores, groups = np.array([0.9, 0.8, 0.7]), np.zeros(3, dtype=np.int64)
    pairs = suppression(boxes, scores, groups, LIMIT, FP32_EPSILONS, np.zeros(3))
    none = np.zeros(3, dtype=np.bool_)
    selection = select("box", 10, pairs, scores, none, {}, FP32_EPSILONS)
    assert selection.undecided.tolist() == [False, True, True]
    near_tie = selection.near_tie(2)
    assert (near_tie.quantity, near_tie.value, near_tie.where) == ("NMS IoU", 0.5, "box 0 and 1")
    assert selection.near_tie(0) is None


def test_only_ranks_that_tie_at_the_cut_are_undecided(subtests: pytest.Subtests) -> None:
    for case, third, undecided_rows in [("tie at the cut", 0.7, [1, 2]), ("clear cut", 0.69, [])]:
        with subtests.test(case):
            boxes = np.arange(4)[:, None] * 100.0 + np.array([0.0, 0.0, 50.0, 50.0])
            scores, groups = np.array([0.9, 0.7, third, 0.5]), np.zeros(4, dtype=np.int64)
            pairs = suppression(boxes, scores, groups, LIMIT, FP32_EPSILONS, np.zeros(4))
            selection = select("box", 2, pairs, scores, np.zeros(4, np.bool_), {}, FP32_EPSILONS)
            assert np.flatnonzero(selection.undecided).tolist() == undecided_rows
            for row in undecided_rows:
                near_tie = selection.near_tie(row)
                assert (near_tie.value, near_tie.threshold, near_tie.distance) == (3, 2, 1)


def test_filters_report_what_they_may_remove() -> None:
    boxes = np.array([[0, 0, 1, 9], [0, 0, 1.00001, 9], [0, 0, 0.9, 9], [0, 0, 5, 9], [0, 0, 5, 9]])
    scores = np.array([0.9, 0.9, 0.9, 0.05, 0.04])
    is_absent, near_ties = filter_outcomes(boxes, scores, 1.0, 0.05, FP32_EPSILONS, "box")
    assert is_absent.tolist() == [False, False, True, False, True]
    assert {box: near_tie.quantity for box, near_tie in near_ties.items()} == {
        0: "box side",
        1: "box side",
        3: "score",
    }


def test_level_rule_boundaries(subtests: pytest.Subtests) -> None:
    for case, side_px, expected in [
        ("level 2 to 3", 112.0, [3.0]),
        ("level 3 to 4", 224.0, [4.0]),
        ("level 4 to 5", 448.0, [5.0]),
        ("below the lowest level", 56.0, []),
        ("above the highest level", 896.0, []),
        ("a pixel away", 225.0, []),
    ]:
        with subtests.test(case):
            boxes = np.array([[7.0, 9.0, 7.0 + side_px, 9.0 + side_px]])
            edge_px = edge_noise(boxes, FP32_EPSILONS)
            near_ties = level_near_ties(boxes, PoolerSpec(), edge_px, "proposal")
            assert [near_tie.threshold for _, near_tie in near_ties] == expected


def test_rounding_of_class_shifted_boxes_leaves_near_ties_undecided() -> None:
    boxes = np.array([[0, 0, 50, 50], [0, 0, 100.005, 50]], dtype=np.float32)
    scores, groups = np.array([0.9, 0.8]), np.array([90, 90])
    none = np.zeros(2, dtype=np.bool_)
    rounding = class_offset_noise(boxes, groups)
    assert rounding == pytest.approx(2.0**-11)
    for noise, undecided in ((np.zeros(2), False), (rounding, True)):
        pairs = suppression(boxes, scores, groups, LIMIT, FP32_EPSILONS, noise)
        assert nms_outcomes(pairs, none, none).undecided[1] == undecided
