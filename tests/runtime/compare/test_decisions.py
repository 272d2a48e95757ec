"""Fates under noise: sound against every perturbation tried, and certain away from ties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.spec import PoolerSpec
from runtime.compare.borderline import (
    Fates,
    class_offset_noise,
    level_witnesses,
    nms_fates,
    presence,
    rank_bounds,
    select,
    suppression,
)
from runtime.compare.limits import FP32_EPSILONS, Epsilons
from tests.oracles.matching import greedy_nms

Floats = NDArray[np.float64]
LIMIT = 0.5


def _fates(
    boxes: Floats, scores: Floats, groups: NDArray[np.int64], epsilons: Epsilons = FP32_EPSILONS
) -> Fates:
    pairs = suppression(boxes, scores, groups, LIMIT, epsilons, np.zeros(len(boxes)))
    nobody = np.zeros(len(boxes), dtype=np.bool_)
    return nms_fates(pairs, nobody, nobody)


def _crowd(rng: np.random.Generator, count: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Heaps of near-square boxes, two groups, some scores tied."""
    centre = rng.integers(0, 3, (count, 2)) * 100.0 + rng.normal(0, 8, (count, 2))
    half = rng.uniform(25, 35, (count, 2))
    boxes = np.concatenate((centre - half, centre + half), axis=1)
    return boxes, rng.choice(rng.uniform(0.1, 0.9, count), count), rng.integers(0, 2, count)


def test_without_noise_every_fate_is_that_of_greedy_nms() -> None:
    rng = np.random.default_rng(0)
    boxes, _, groups = _crowd(rng, 80)
    scores = rng.permutation(80) / 100 + 0.1
    fates = _fates(boxes, scores, groups)
    assert not fates.is_open.any()
    assert (fates.kept == greedy_nms(boxes, scores, groups, LIMIT)).all()
    assert 0 < fates.kept.sum() < 80


def test_no_perturbation_within_epsilon_turns_a_certain_fate() -> None:
    rng = np.random.default_rng(1)
    # Wide epsilons, so that many fates are open and the claim is tried often.
    coarse = replace(
        FP32_EPSILONS,
        nms_iou=replace(FP32_EPSILONS.nms_iou, value=0.02),
        score_logit=replace(FP32_EPSILONS.score_logit, value=0.1),
    )
    turned = certain = 0
    for _ in range(80):
        boxes, scores, groups = _crowd(rng, 40)
        fates = _fates(boxes, scores, groups, coarse)
        # 0.1 px on every edge of a box of 50 px or more moves an IoU by less than 0.02.
        noisy_boxes = boxes + rng.uniform(-0.1, 0.1, boxes.shape)
        logits = np.log(scores / (1 - scores)) + rng.uniform(-0.09, 0.09, scores.shape)
        now = greedy_nms(noisy_boxes, 1 / (1 + np.exp(-logits)), groups, LIMIT)
        turned += int((now != greedy_nms(boxes, scores, groups, LIMIT)).sum())
        certain += int((~fates.is_open).sum())
        assert now[fates.kept].all()
        assert not now[fates.dropped].any()
    assert turned > 20
    assert certain > 400


@pytest.mark.parametrize(
    ("second", "scores", "open_rows"),
    [
        pytest.param([0, 0, 100, 50], [0.9, 0.8], [1], id="IoU at the limit"),
        pytest.param([0, 0, 100.1, 50], [0.9, 0.8], [], id="IoU below"),
        pytest.param([0, 0, 99.9, 50], [0.9, 0.8], [], id="IoU above"),
        pytest.param([0, 0, 60, 50], [0.8, 0.8], [0, 1], id="equal scores"),
        pytest.param([0, 0, 60, 50], [0.8, 0.7999], [], id="scores apart"),
        pytest.param([100, 0, 160, 50], [0.8, 0.8], [], id="equal scores, boxes apart"),
    ],
)
def test_open_fates_of_two_boxes(
    second: list[float], scores: list[float], open_rows: list[int]
) -> None:
    boxes = np.array([[0, 0, 50, 50], second], dtype=np.float64)
    fates = _fates(boxes, np.array(scores), np.zeros(2, dtype=np.int64))
    assert np.flatnonzero(fates.is_open).tolist() == open_rows


def test_a_near_tie_with_a_box_that_is_certainly_dropped_opens_nothing() -> None:
    # The second box stands at IoU 0.5 with the third, but the first one drops it for certain.
    boxes = np.array([[0, 0, 52, 50], [0, 0, 50, 50], [0, 0, 25, 50]], dtype=np.float64)
    fates = _fates(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, dtype=np.int64))
    assert fates.kept.tolist() == [True, False, True]
    assert not fates.is_open.any()


def test_an_open_box_opens_what_it_alone_would_drop() -> None:
    boxes = np.array([[0, 0, 50, 50], [0, 0, 100, 50], [20, 0, 120, 50]], dtype=np.float64)
    scores, groups = np.array([0.9, 0.8, 0.7]), np.zeros(3, dtype=np.int64)
    pairs = suppression(boxes, scores, groups, LIMIT, FP32_EPSILONS, np.zeros(3))
    nobody = np.zeros(3, dtype=np.bool_)
    chosen = select("box", 10, pairs, scores, nobody, {}, FP32_EPSILONS)
    assert chosen.is_open.tolist() == [False, True, True]
    witness = chosen.witness(2)
    assert witness is not None
    assert (witness.quantity, witness.value, witness.where) == ("NMS IoU", 0.5, "box 0 and 1")
    assert chosen.witness(0) is None


@pytest.mark.parametrize(
    ("third", "open_rows"),
    [
        pytest.param(0.7, [1, 2], id="tie at the cut"),
        pytest.param(0.69, [], id="clear cut"),
    ],
)
def test_the_cut_opens_only_ranks_that_tie(third: float, open_rows: list[int]) -> None:
    boxes = np.arange(4)[:, None] * 100.0 + np.array([0.0, 0.0, 50.0, 50.0])
    scores, groups = np.array([0.9, 0.7, third, 0.5]), np.zeros(4, dtype=np.int64)
    pairs = suppression(boxes, scores, groups, LIMIT, FP32_EPSILONS, np.zeros(4))
    chosen = select("box", 2, pairs, scores, np.zeros(4, np.bool_), {}, FP32_EPSILONS)
    assert np.flatnonzero(chosen.is_open).tolist() == open_rows
    for row in open_rows:
        witness = chosen.witness(row)
        assert witness is not None
        assert (witness.value, witness.decision, witness.distance) == (3, 2, 1)


def test_rank_bounds_count_certain_and_possible_survivors() -> None:
    fates = Fates(np.array([True, False, True, False]), np.array([False, False, False, True]))
    at_least, at_most = rank_bounds(fates, np.array([0.9, 0.8, 0.7, 0.6]), 1e-5)
    assert at_least[:3].tolist() == [0, 1, 1]
    assert at_most[:3].tolist() == [0, 1, 2]


def test_presence_names_what_the_filters_may_remove() -> None:
    boxes = np.array([[0, 0, 1, 9], [0, 0, 1.00001, 9], [0, 0, 0.9, 9], [0, 0, 5, 9], [0, 0, 5, 9]])
    scores = np.array([0.9, 0.9, 0.9, 0.05, 0.04])
    is_absent, uncertain = presence(boxes, scores, 1.0, 0.05, FP32_EPSILONS, "box")
    assert is_absent.tolist() == [False, False, True, False, True]
    assert {box: w.quantity for box, w in uncertain.items()} == {
        0: "box side",
        1: "box side",
        3: "score",
    }


@pytest.mark.parametrize(
    ("side_px", "expected"),
    [
        pytest.param(112.0, [3.0], id="level 2 to 3"),
        pytest.param(224.0, [4.0], id="level 3 to 4"),
        pytest.param(448.0, [5.0], id="level 4 to 5"),
        pytest.param(56.0, [], id="below the lowest level"),
        pytest.param(896.0, [], id="above the highest level"),
        pytest.param(225.0, [], id="a pixel away"),
    ],
)
def test_level_rule_boundaries(side_px: float, expected: list[float]) -> None:
    boxes = np.array([[7.0, 9.0, 7.0 + side_px, 9.0 + side_px]])
    found = list(level_witnesses(boxes, PoolerSpec(), FP32_EPSILONS, "proposal"))
    assert [witness.decision for _, witness in found] == expected


def test_a_single_level_has_no_level_rule() -> None:
    boxes = np.array([[0.0, 0.0, 224.0, 224.0]])
    assert not list(level_witnesses(boxes, PoolerSpec(strides=(16,)), FP32_EPSILONS, "proposal"))


def test_class_shift_opens_what_its_rounding_can_turn() -> None:
    boxes = np.array([[0, 0, 50, 50], [0, 0, 100.005, 50]], dtype=np.float32)
    scores, groups = np.array([0.9, 0.8]), np.array([90, 90])
    nobody = np.zeros(2, dtype=np.bool_)
    rounding = class_offset_noise(boxes, groups)
    assert rounding == pytest.approx(2.0**-11)
    for noise, is_open in ((np.zeros(2), False), (rounding, True)):
        pairs = suppression(boxes, scores, groups, LIMIT, FP32_EPSILONS, noise)
        assert nms_fates(pairs, nobody, nobody).is_open[1] == is_open
