"""Matching and measuring: order, duplicates, empties, box-only results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.errors import UsageError
from runtime.compare.matching import assign, box_iou, compare, match
from tests.oracles.matching import best_total, iou
from tests.runtime.compare.scenes import SIDE, detections, rows_of, scene

EMPTY = detections(np.zeros((0, 4)), [], [], np.zeros((0, SIDE, SIDE), dtype=np.float32))


def test_box_iou_equals_the_scalar_rule() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (12, 2))
    boxes = np.concatenate((low, low + rng.uniform(1, 50, (12, 2))), axis=1).astype(np.float32)
    expected = [[iou(a.astype(np.float64), b.astype(np.float64)) for b in boxes] for a in boxes]
    np.testing.assert_allclose(box_iou(boxes, boxes), expected, rtol=1e-12)


def test_box_iou_of_boxes_without_area(subtests: pytest.Subtests) -> None:
    for case, other, expected in [
        ("same point", [5, 5, 5, 5], 1.0),
        ("another point", [6, 5, 6, 5], 0.0),
        ("point in a box", [0, 0, 10, 10], 0.0),
    ]:
        with subtests.test(case):
            point = np.array([[5, 5, 5, 5]], dtype=np.float32)
            assert box_iou(point, np.array([other], dtype=np.float32)).item() == expected


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3), (5, 5), (4, 6), (6, 3)], ids=str)
def test_assignment_is_the_best_of_all(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        value = rng.choice([0.0, 0.2, 0.5, *rng.uniform(0, 1, 5)], size=shape)
        pairs = assign(value)
        assert len({row for row, _ in pairs}) == len({c for _, c in pairs}) == min(shape)
        total = sum(float(value[row, column]) for row, column in pairs)
        assert total == pytest.approx(best_total(value), abs=1e-12)


def test_permuted_rows_compare_equal() -> None:
    result = scene()
    order = np.random.default_rng(2).permutation(len(result))
    comparison = compare(result, rows_of(result, order))
    assert (order[comparison.matching.pairs[:, 1]] == np.arange(len(result))).all()
    assert comparison.extremes.score_diff == comparison.extremes.box_diff_px == 0.0
    assert comparison.extremes.mask_prob_diff == 0.0
    assert comparison.extremes.mask_iou == 1.0


def test_pairs_are_the_best_ones() -> None:
    box = [[10, 10, 50, 50]]
    matching = match(detections(box, [0.9], [1]), detections(box, [0.9], [2]))
    assert matching.pairs.shape == (0, 2)
    assert matching.unmatched_reference.tolist() == matching.unmatched_candidate.tolist() == [0]
    # Each reference row overlaps the next candidate row by half, and one pair is identical.
    kept, lost, extra = [0, 0, 60, 60], [20, 0, 80, 60], [-20, 0, 40, 60]
    reference = detections([kept, lost], [0.9, 0.8], [1, 1])
    candidate = detections([extra, kept], [0.9, 0.9], [1, 1])
    matching = match(reference, candidate)
    assert matching.pairs.tolist() == [[0, 1]]
    assert matching.unmatched_reference.tolist() == [1]
    assert matching.unmatched_candidate.tolist() == [0]


@pytest.mark.parametrize(
    ("width", "is_pair"),
    [pytest.param(100, True, id="IoU 0.5"), pytest.param(101, False, id="IoU below 0.5")],
)
def test_pairs_need_half_of_the_union(width: int, is_pair: bool) -> None:
    a, b = detections([[0, 0, 50, 50]], [1.0], [1]), detections([[0, 0, width, 50]], [0.1], [1])
    assert (len(match(a, b).pairs) == 1) is is_pair


@pytest.mark.parametrize("noise_px", [0.0, 4e-4], ids=["exact", "noisy"])
@pytest.mark.parametrize("tells", ["scores", "masks"])
def test_coinciding_boxes_pair_by_what_tells_them_apart(tells: str, noise_px: float) -> None:
    rng = np.random.default_rng(3)
    scores = [0.9, 0.6, 0.3, 0.299] if tells == "scores" else [0.5] * 4
    probs = np.repeat(rng.uniform(0, 1, (1 if tells == "scores" else 4, SIDE, SIDE)), 4, axis=0)
    result = detections([[5, 5, 90, 60]] * 4, scores, [1] * 4, probs[-4:].astype(np.float32))
    if tells == "masks":
        mixed = rng.uniform(0, 1, (4, SIDE, SIDE)).astype(np.float32)
        result = replace(result, mask_probs=mixed)
    order = np.array([2, 0, 3, 1])
    other = rows_of(result, order)
    noise = rng.uniform(-noise_px, noise_px, (4, 4)).astype(np.float32)
    matching = match(result, replace(other, boxes=other.boxes + noise))
    assert order[matching.pairs[:, 1]].tolist() == [0, 1, 2, 3]


def test_empty_results(subtests: pytest.Subtests) -> None:
    for case, reference, candidate, missing, extra in [
        ("both empty", EMPTY, EMPTY, 0, 0),
        ("no candidates", scene(), EMPTY, 12, 0),
        ("no references", EMPTY, scene(), 0, 12),
    ]:
        with subtests.test(case):
            comparison = compare(reference, candidate)
            assert len(comparison.matching.unmatched_reference) == missing
            assert len(comparison.matching.unmatched_candidate) == extra
            assert comparison.extremes.score_diff is None
            assert comparison.extremes.mask_iou is None


def test_differences_are_those_that_were_made() -> None:
    result = scene()
    boxes, scores = result.boxes.copy(), result.scores.copy()
    boxes[3, 1] += 0.25
    scores[5] -= 0.125
    probs = np.array(result.mask_probs)
    probs[7, 2, 3] += 0.0625
    other = replace(result, boxes=boxes, scores=scores, mask_probs=probs)
    comparison = compare(result, other)
    assert comparison.box_diff_px.argmax() == 3
    assert comparison.score_diff.argmax() == 5
    worst = comparison.extremes
    assert worst.box_diff_px == pytest.approx(0.25, abs=1e-5)
    assert worst.score_diff == pytest.approx(0.125, abs=1e-7)
    assert worst.mask_prob_diff == pytest.approx(0.0625, abs=1e-7)


def test_masks_are_compared_in_pixels() -> None:
    ones = np.ones((1, SIDE, SIDE), dtype=np.float32)
    a = detections([[20, 20, 60, 60]], [0.9], [1], ones)
    b = detections([[20, 20, 60, 50]], [0.9], [1], ones)
    assert b.masks is not None
    comparison = compare(a, b)
    both, either = (a.masks & b.masks).sum(), (a.masks | b.masks).sum()
    assert comparison.mask_iou.item() == both / either
    assert comparison.mask_area_px.item() == a.masks.sum()
    nothing = np.zeros((1, SIDE, SIDE), dtype=np.float32)
    result = detections([[20, 20, 60, 60]], [0.9], [1], nothing)
    assert compare(result, result).extremes.mask_iou == 1.0
    result = scene(with_masks=False)
    comparison = compare(result, result)
    numbers = (comparison.mask_iou, comparison.mask_area_px, comparison.mask_prob_diff)
    assert numbers == (None, None, None)
    assert len(comparison.matching.pairs) == len(result)


@pytest.mark.parametrize("has_masks", ["reference", "candidate"])
def test_masks_on_one_side_only_are_no_match(has_masks: str) -> None:
    sides = (scene(), scene(with_masks=False))
    comparison = compare(*(sides if has_masks == "reference" else sides[::-1]))
    assert comparison.extremes.mask_iou == 0.0


def test_results_that_cannot_be_compared() -> None:
    result = scene()
    with pytest.raises(UsageError, match=r"compare a\.jpg: .*\(240, 320\) and \(240, 321\)"):
        compare(result, replace(result, image_hw=(240, 321)), "a.jpg")
    other = replace(result, mask_probs=np.zeros((12, 4, 4), dtype=np.float32))
    with pytest.raises(UsageError, match="masks of one side length"):
        compare(result, other)
