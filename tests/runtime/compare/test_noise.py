"""Limits that follow a model's own noise: never narrower, never beyond what is known of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtime.compare.limits import FP32_ONNX
from runtime.compare.matching import compare
from runtime.compare.noise import RECORDED, Noise, largest, measure, widened
from runtime.detections import Detections

SMALL = Noise(1e-6, 1e-6, 1e-4, 1e-7, 1e-6)


def _detections(shift_px: float = 0.0, score: float = 0.0, mask: float = 0.0) -> Detections:
    boxes = np.array([[10, 10, 50, 90], [20, 30, 60, 50]], np.float32) + np.float32(shift_px)
    probs = np.full((2, 4, 4), 0.25, np.float32) + np.float32(mask)
    return Detections(
        boxes, np.array([0.5, 0.25], np.float32) + np.float32(score), np.array([1, 2]),
        ("a", "b"), probs, (120, 120),
    )  # fmt: skip


def test_what_is_measured() -> None:
    noise = measure(compare(_detections(), _detections(0.004, 1e-3, 2e-4)))
    assert noise.box_px == pytest.approx(0.004, rel=1e-3)
    assert noise.edge_relative == pytest.approx(0.004 / 40, rel=1e-3)
    assert noise.score == pytest.approx(1e-3, rel=1e-3)
    assert noise.score_logit == pytest.approx(1e-3 / (0.25 * 0.75), rel=1e-2)
    assert noise.mask_probability == pytest.approx(2e-4, rel=1e-3)


def test_limits_follow_the_noise() -> None:
    far = replace(_detections(), labels=np.array([5, 6]))
    assert measure(compare(_detections(), far)) == Noise(0.0, 0.0, 0.0, 0.0, 0.0)
    limits = widened(FP32_ONNX, SMALL)
    plain = replace(limits, name=FP32_ONNX.name, near_tie_floor=FP32_ONNX.near_tie_floor)
    assert plain == FP32_ONNX
    assert limits.near_tie_floor.value == 5  # of one photo's rows, all from near ties
    wide = widened(FP32_ONNX, replace(SMALL, score=1e-4, box_px=0.01, mask_probability=1e-3))
    assert wide.score.value == pytest.approx(3e-4)
    assert wide.box_px.value == pytest.approx(0.03)
    assert wide.epsilons.mask_probability.value == pytest.approx(3e-3)
    assert wide.mask_iou.value == 0.99
    assert "own eager runs" in wide.score.reason
    assert wide.epsilons.nms_iou == FP32_ONNX.epsilons.nms_iou
    assert wide.keypoint_px.value == wide.box_px.value
    widest = widened(FP32_ONNX, Noise(1.0, 1.0, 1e3, 1.0, 1.0))
    assert (widest.score.value, widest.box_px.value) == (1e-3, 0.05)
    assert widest.epsilons.mask_probability.value == 1e-2
    assert (RECORDED.score.value, RECORDED.box_px.value) == (1e-3, 0.05)
    assert widest.unexplained.value == 0
    other = replace(SMALL, score=1.0, box_px=0.0)
    assert largest([SMALL, other]) == replace(SMALL, score=1.0)


def test_noise_of_heat_maps_grows_with_that_of_edges_and_scores() -> None:
    wide = widened(FP32_ONNX, replace(SMALL, edge_relative=1e-5))
    assert wide.epsilons.keypoint_logit.value == pytest.approx(4.5e-4)
    assert wide.epsilons.nms_iou.value == pytest.approx(3e-5)
    assert wide.keypoint_fraction.value == pytest.approx(6e-3)
    assert wide.mask_iou.value == 0.99
