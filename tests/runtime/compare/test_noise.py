"""Limits that follow a model's own noise, and never are narrower than those of a quiet model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtime.compare.differences import differences
from runtime.compare.limits import FP32_ONNX
from runtime.compare.matching import compare
from runtime.compare.noise import RECORDED, WORST, measure, widened
from runtime.detections import Detections


def _detections(shift_px: float = 0.0, score: float = 0.0, mask: float = 0.0) -> Detections:
    boxes = np.array([[10, 10, 50, 90], [20, 30, 60, 50]], np.float32) + np.float32(shift_px)
    probs = np.full((2, 4, 4), 0.25, np.float32) + np.float32(mask)
    return Detections(
        boxes, np.array([0.5, 0.25], np.float32) + np.float32(score), np.array([1, 2]),
        ("a", "b"), probs, (120, 120),
    )  # fmt: skip


def test_what_is_measured() -> None:
    noise = measure([[compare(_detections(), _detections(0.004, 1e-3, 2e-4))]])
    assert noise.worst("box_px") == pytest.approx(0.004, rel=1e-3)
    assert noise.worst("edge_relative") == pytest.approx(0.004 / 40, rel=1e-3)
    assert noise.worst("score") == pytest.approx(1e-3, rel=1e-3)
    assert noise.worst("score_logit") == pytest.approx(1e-3 / (0.25 * 0.75), rel=1e-2)
    assert noise.worst("mask_probability") == pytest.approx(2e-4, rel=1e-3)
    assert str(noise) == (
        "eager differs from itself by 0.004 px, 1.0e-03 in score, 2.0e-04 in mask probability on "
        "this model"
    )


def test_the_noise_is_the_largest_of_the_variants() -> None:
    eager = _detections()
    quiet, loud = compare(eager, _detections(1e-4), "a"), compare(eager, _detections(3e-3), "a")
    other = compare(eager, _detections(2e-4), "b")
    noise = measure([[quiet, other], [loud, other]])
    assert noise.worst("box_px") == pytest.approx(3e-3, rel=1e-2)
    assert noise.quantile("box_px", 0.5) == pytest.approx(2e-4, rel=1e-1)
    assert measure([]).worst("box_px") == 0.0


def test_a_step_of_a_score_near_one_is_no_difference_of_its_logit() -> None:
    eager = replace(_detections(), scores=np.array([1 - 2**-20, 0.5], np.float32))
    step = np.array([2.0**-24, 0.0], np.float32)
    other = replace(eager, scores=eager.scores + step)
    (logits,) = measure([[compare(eager, other)]]).of("score_logit")
    assert logits.values.tolist() == [0.0, 0.0]
    far = replace(eager, scores=eager.scores - 100 * step)
    assert measure([[compare(eager, far)]]).worst("score_logit") > 1.0


def test_the_99th_percentile_of_few_rows_is_not_their_worst() -> None:
    eager = _detections()
    moved = replace(eager, boxes=eager.boxes + np.array([[0.5], [0.001]], np.float32))
    (of_boxes,) = measure([[compare(eager, moved)]]).of("box_px")
    assert of_boxes.quantile(0.99) == pytest.approx(0.001, rel=1e-2)
    assert of_boxes.quantile(1.0) == pytest.approx(0.5, rel=1e-2)


def test_rows_that_moved_by_a_tenth_or_are_skipped_are_no_noise() -> None:
    eager = _detections()
    moved = replace(eager, boxes=eager.boxes + np.array([[0.002], [4.2]], np.float32))
    comparison = compare(eager, moved, "a")
    assert comparison.box_diff_px.max() > 4
    assert differences([comparison])["box_px"].values == pytest.approx([0.002], rel=1e-2)
    assert not differences([comparison], {("a", 0)})["box_px"].values.size


def test_limits_follow_the_noise() -> None:
    far = replace(_detections(), labels=np.array([5, 6]))
    nothing = measure([[compare(_detections(), far)]])
    small = measure([[compare(_detections(), _detections(1e-5, 1e-7, 1e-7))]])
    for noise in (nothing, small):
        limits = widened(FP32_ONNX, noise)
        floor = FP32_ONNX.near_tie_floor
        assert replace(limits, name=FP32_ONNX.name, near_tie_floor=floor) == FP32_ONNX
        assert limits.near_tie_floor.value == 5  # of one photo's rows, all from near ties
    loud = measure([[compare(_detections(), _detections(0.3, 1e-3, 2e-2))]])
    wide = widened(FP32_ONNX, loud)
    assert wide.score.value == pytest.approx(WORST.value * 1e-3, rel=1e-2)
    assert wide.box_px.value == pytest.approx(WORST.value * 0.3, rel=1e-2)
    assert wide.mask_probability.value == pytest.approx(WORST.value * 2e-2, rel=1e-2)
    assert wide.epsilons.mask_probability.value == wide.mask_probability.value
    growth = wide.epsilons.edge_relative.value / FP32_ONNX.epsilons.edge_relative.value
    assert wide.epsilons.nms_iou.value == pytest.approx(growth * 1e-5)
    assert wide.keypoint_px.value == wide.box_px.value
    assert wide.mask_iou.value == 0.99
    assert wide.unexplained.value == 0
    assert "own eager runs" in wide.score.reason


def test_limits_of_recorded_outputs() -> None:
    assert (RECORDED.score.value, RECORDED.box_px.value) == (1e-3, 0.05)
    assert (RECORDED.mask_iou.value, RECORDED.near_tie_floor.value) == (0.99, 5)
    assert (RECORDED.keypoint_score.value, RECORDED.keypoint_fraction.value) == (2e-2, 1e-2)
    assert RECORDED.keypoint_px.value == 0.05
    eps = RECORDED.epsilons
    assert (eps.nms_iou.value, eps.score_logit.value, eps.edge_relative.value) == (1e-3, 1e-2, 1e-3)
    assert (eps.mask_probability.value, eps.keypoint_logit.value) == (1e-2, 1e-2)
    assert RECORDED.unexplained.value == 0
