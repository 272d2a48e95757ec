"""Which rows count as reproduced, how many must be, and that a broken result fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.errors import UsageError
from runtime.compare.half_limits import HALF_LIMITS, HalfVerdict, check_half_run
from runtime.compare.matching import compare
from runtime.detections import Detections
from tests.runtime.compare.scenes import SIDE, detections, rows_of

FP16 = HALF_LIMITS["fp16"]


def _scene(count: int = 30) -> Detections:
    corner = np.arange(count)[:, None] * np.array([[9.0, 6.0]])
    boxes = np.concatenate([corner, corner + 40], axis=1) % 200
    boxes[:, 2:] = boxes[:, :2] + 40
    probabilities = np.full((count, SIDE, SIDE), 0.9, np.float32)
    scores = np.linspace(0.9, 0.4, count)
    return detections(boxes, scores.tolist(), [i % 9 + 1 for i in range(count)], probabilities)


def _check(result: Detections, reference: Detections | None = None) -> HalfVerdict:
    return check_half_run(
        [compare(_scene() if reference is None else reference, result, "a")], FP16
    )


def test_small_changes_and_few_rows_pass() -> None:
    verdict = _check(_scene())
    assert (verdict.rows, verdict.reproduced, verdict.passed) == (30, 30, True)
    assert "30 of 30 eager detections reproduced" in str(verdict)
    scene = _scene()
    moved = replace(scene, boxes=scene.boxes + np.float32(2), scores=scene.scores - np.float32(0.1))
    assert _check(moved).reproduced == 30
    unsure = replace(scene, scores=scene.scores * np.float32(0.3))
    assert _check(unsure, unsure).rows == 20
    empty = rows_of(_scene(), [])
    verdict = _check(empty, empty)
    assert (verdict.rows, verdict.fraction, verdict.passed) == (0, 1.0, True)
    with pytest.raises(UsageError, match="at least one image"):
        check_half_run([], FP16)


def test_three_of_thirty_may_differ_and_four_may_not() -> None:
    scene = _scene()
    assert _check(rows_of(scene, range(3, 30))).passed
    four = _check(rows_of(scene, range(4, 30)))
    assert (four.reproduced, four.passed) == (26, False)


def test_a_broken_result_fails(subtests: pytest.Subtests) -> None:
    for case, change in [
        ("boxes", lambda s: replace(s, boxes=s.boxes + np.float32(8))),
        ("scores", lambda s: replace(s, scores=s.scores - np.float32(0.2))),
        ("labels", lambda s: replace(s, labels=s.labels % 9 + 1)),
        ("masks", lambda s: replace(s, mask_probs=s.mask_probs * 0)),
    ]:
        with subtests.test(case):
            verdict = _check(change(_scene()))  # type: ignore[operator]
            assert not verdict.passed
            assert verdict.fraction < 0.2


def test_keypoints() -> None:
    scene = _scene(5)
    points = np.zeros((5, 4, 3), np.float32)
    reference = replace(scene, keypoints=points, keypoint_names=tuple("abcd"))
    near, far = points + np.float32(1.9), points + np.float32(2.1)  # 5 % of 40 px are 2 px
    assert _check(replace(reference, keypoints=near), reference).reproduced == 5
    assert _check(replace(reference, keypoints=far), reference).reproduced == 0
