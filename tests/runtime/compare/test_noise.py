"""Limits that follow a model's own noise: never narrower, never beyond what is known of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtime.compare.limits import FP32_ONNX
from runtime.compare.matching import compare
from runtime.compare.noise import RECORDED, Noise, largest, measure, widened
from runtime.detections import Detections

QUIET = Noise(1e-6, 1e-6, 1e-4, 1e-7, 1e-6)


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


def test_nothing_matched_is_no_noise() -> None:
    far = replace(_detections(), labels=np.array([5, 6]))
    assert measure(compare(_detections(), far)) == Noise(0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_quiet_model_keeps_its_limits() -> None:
    kept = widened(FP32_ONNX, QUIET)
    plain = replace(kept, name=FP32_ONNX.name, witnessed_floor=FP32_ONNX.witnessed_floor)
    assert plain == FP32_ONNX
    assert kept.witnessed_floor.value == 5  # of one photo's rows, all with a witness


def test_a_loud_model_has_three_times_its_noise() -> None:
    loud = widened(FP32_ONNX, replace(QUIET, score=1e-4, box_px=0.01, mask_probability=1e-3))
    assert loud.score.value == pytest.approx(3e-4)
    assert loud.box_px.value == pytest.approx(0.03)
    assert loud.epsilons.mask_probability.value == pytest.approx(3e-3)
    assert loud.mask_iou.value == 0.99
    assert "eager runs differ" in loud.score.reason
    assert loud.epsilons.nms_iou == FP32_ONNX.epsilons.nms_iou
    assert loud.keypoint_px.value == loud.box_px.value


def test_heat_maps_are_as_loud_as_edges_and_scores() -> None:
    loud = widened(FP32_ONNX, replace(QUIET, edge_relative=1e-5))
    assert loud.epsilons.keypoint_logit.value == pytest.approx(4.5e-4)
    assert loud.epsilons.nms_iou.value == pytest.approx(3e-5)
    assert loud.keypoint_share.value == pytest.approx(6e-3)
    assert loud.mask_iou.value == 0.99


def test_there_is_a_most() -> None:
    chaos = widened(FP32_ONNX, Noise(1.0, 1.0, 1e3, 1.0, 1.0))
    assert (chaos.score.value, chaos.box_px.value) == (1e-3, 0.05)
    assert chaos.epsilons.mask_probability.value == 1e-2
    assert (RECORDED.score.value, RECORDED.box_px.value) == (1e-3, 0.05)
    assert chaos.unwitnessed.value == 0


def test_the_largest_of_each() -> None:
    other = replace(QUIET, score=1.0, box_px=0.0)
    assert largest([QUIET, other]) == replace(QUIET, score=1.0)
