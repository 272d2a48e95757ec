"""Keypoints alone: near-equal peaks, sides near an integer, the keypoint head's level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import UsageError
from model.spec import KeypointHeadSpec, PoolerSpec
from runtime.compare.attribution import explain
from runtime.compare.keypoint_attribution import KeypointTrace
from runtime.compare.limits import FP32_ONNX, Verdict, check
from runtime.compare.matching import compare
from runtime.detections import Detections
from runtime.postprocessing.keypoints import decode
from tests.runtime.compare.scenes import SPEC, benign_trace, detections

NAMES = ("head", "tail")
HEAD = KeypointHeadSpec(PoolerSpec(14), (8,), NAMES)
# Sides of 80.3 by 40.6: the grid is 81 by 41.
BOX = (20.0, 30.0, 100.3, 70.6)
SIDE = 16


def _maps(second_peak: float = 3.0) -> NDArray[np.float32]:
    """Two maps with a peak of 4 each, the first with another one far from it."""
    y, x = np.mgrid[:SIDE, :SIDE]

    def bump(row: int, column: int) -> NDArray[np.float64]:
        return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 6)

    first = 4.0 * bump(4, 3) + second_peak * bump(11, 12)
    return np.stack([first, 4.0 * bump(8, 8)])[None].astype(np.float32)


def _result(
    maps: NDArray[np.float32], box: tuple[float, ...] = BOX, decoded_in: tuple[float, ...] = BOX
) -> Detections:
    keypoints = decode(maps, np.array([decoded_in], np.float32))
    return replace(detections([box], [0.9], [1]), keypoints=keypoints, keypoint_names=NAMES)


def _check(
    reference: Detections, candidate: Detections, maps: NDArray[np.float32] | None
) -> Verdict:
    trace = benign_trace(reference, replace(SPEC, keypoint=HEAD))
    if maps is not None:
        trace = replace(trace, keypoints=KeypointTrace(maps, reference.boxes))
    comparison = compare(reference, candidate, "a")
    return explain(check([comparison]), [comparison], lambda _: trace)


def _moved(result: Detections, by: tuple[float, float, float], keypoint: int = 0) -> Detections:
    keypoints = result.keypoints.copy()
    keypoints[0, keypoint] += np.array(by, np.float32)
    return replace(result, keypoints=keypoints)


def test_equal_keypoints_pass() -> None:
    verdict = _check(_result(_maps()), _result(_maps()), _maps())
    assert verdict.passed
    assert (verdict.excesses, verdict.keypoints, verdict.worst_keypoint_diff_px) == ((), 2, 0.0)
    assert str(verdict).endswith("box 0.0000 px · keypoint 0.0000 px")


@pytest.mark.parametrize("keypoint", [0, 1])
def test_a_difference_is_reported_at_its_keypoint_and_not_explained(
    keypoint: int, subtests: pytest.Subtests
) -> None:
    for case, by, quantities in [
        ("within", (0.009, -0.009, 0), []),
        ("x", (0.012, 0, 0), ["keypoint_px"]),
        ("y", (0, -1, 0), ["keypoint_px"]),
        ("score-within", (0, 0, 0.001), []),
        ("score", (0, 0, -0.01), ["keypoint_score"]),
        ("both", (20, 0, 1), ["keypoint_px", "keypoint_score"]),
    ]:
        with subtests.test(case):
            result = _result(_maps())
            verdict = _check(result, _moved(result, by, keypoint), _maps())
            assert [e.quantity for e in verdict.excesses] == quantities
            assert all(e.keypoint == keypoint and not e.near_tie for e in verdict.excesses)
            assert verdict.passed == (not quantities)
            assert verdict.unexplained_rows == bool(quantities)
            if quantities:
                assert f"row 0, label 1, keypoint {keypoint}: keypoint_" in str(verdict.excesses[0])


def _tied(lead: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Maps whose first one has two peaks, the first or the second ahead by `lead`."""
    low, high = 3.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        ahead = decode(_maps(middle), np.array([BOX], np.float32))[0, 0, 0] > 60
        low, high = (low, middle) if ahead else (middle, high)
    return _maps(low - lead), _maps(high + lead)


@pytest.mark.parametrize(
    ("lead", "explained"),
    [pytest.param(2e-5, True, id="tied"), pytest.param(5e-3, False, id="apart")],
)
def test_peaks_that_are_nearly_equal_explain(lead: float, explained: bool) -> None:
    first, second = _tied(lead)
    verdict = _check(_result(first), _result(second), first)
    moved = [e for e in verdict.excesses if e.quantity == "keypoint_px"]
    assert [(e.keypoint, e.got > 30, bool(e.near_tie)) for e in moved] == [(0, True, explained)]
    assert verdict.passed == explained
    if explained:
        assert moved[0].near_tie.startswith("keypoint peak 3.999")
        assert "at keypoint 0 of row 0" in moved[0].near_tie
        assert (verdict.near_tie_rows, verdict.near_tie_keypoints) == (0, 1)
        assert "1 of 2 keypoints from near ties" in str(verdict)


def test_only_the_pixel_of_the_other_peak_is_explained() -> None:
    first, second = _tied(2e-5)
    verdict = _check(_result(first), _moved(_result(second), (5, 0, 0)), first)
    assert [bool(e.near_tie) for e in verdict.excesses] == [False]
    assert _check(_result(first), _result(second), None).unexplained_rows == 1


# A side of 80 + 1e-4 px is resized to 81 pixels, one of 80 to 80.
AT_INTEGER = (20.0, 30.0, 100.0001, 70.6)


def test_a_side_near_an_integer_explains_another_grid(subtests: pytest.Subtests) -> None:
    for case, wider, explained in [("an-integer", 100.0, True), ("inside", 100.0 - 0.4, False)]:
        with subtests.test(case):
            other = (20.0, 30.0, wider, 70.6)
            reference = _result(_maps(), AT_INTEGER, AT_INTEGER)
            candidate = _result(_maps(), AT_INTEGER, other)
            verdict = _check(reference, candidate, _maps())
            assert verdict.excesses
            assert {bool(e.near_tie) for e in verdict.excesses} == {explained}
            if explained:
                assert verdict.excesses[0].near_tie.startswith("box side 80.0000992 is")


@pytest.mark.parametrize(("side_px", "explained"), [(112.0, True), (120.0, False)])
def test_a_level_boundary_explains_any_heat_map(side_px: float, explained: bool) -> None:
    box = (20.0, 30.0, 20.0 + side_px, 30.0 + side_px)
    reference = _result(_maps(), box, box)
    verdict = _check(reference, _moved(reference, (9.0, 4.0, 2.0)), _maps())
    assert {e.quantity for e in verdict.excesses} == {"keypoint_px", "keypoint_score"}
    assert {bool(e.near_tie) for e in verdict.excesses} == {explained}


def test_keypoints_that_cannot_be_compared() -> None:
    result = _result(_maps())
    without = replace(result, keypoints=None, keypoint_names=())
    for pair in ((result, without), (without, result)):
        verdict = check([compare(*pair, "a")])
        assert {e.quantity for e in verdict.excesses} == {"keypoint_px", "keypoint_score"}
        assert not verdict.passed
    assert check([compare(without, without, "a")]).worst_keypoint_diff_px is None
    other = replace(result, keypoints=result.keypoints[:, :1], keypoint_names=("head",))
    with pytest.raises(UsageError, match="expected equal numbers of keypoints"):
        compare(result, other)


def test_only_a_small_fraction_of_keypoints_may_change() -> None:
    maps, other = (np.repeat(m, 3, axis=0) for m in _tied(2e-5))
    boxes = np.array([BOX, BOX, BOX], np.float32) + 100 * np.arange(3, dtype=np.float32)[:, None]

    def result(from_maps: NDArray[np.float32]) -> Detections:
        result = detections(boxes, [0.9, 0.8, 0.7], [1, 1, 1], image_hw=(400, 400))
        return replace(result, keypoints=decode(from_maps, boxes), keypoint_names=NAMES)

    reference = result(maps)
    trace = replace(
        benign_trace(reference, replace(SPEC, keypoint=HEAD)), keypoints=KeypointTrace(maps, boxes)
    )
    for changed, passed in ((2, True), (3, False)):
        mixed = np.concatenate((other[:changed], maps[changed:]))
        comparison = compare(reference, result(mixed), "a")
        verdict = explain(check([comparison]), [comparison], lambda _: trace)
        assert (verdict.near_tie_keypoints, verdict.unexplained_rows) == (changed, 0)
        assert verdict.passed is passed
    assert FP32_ONNX.keypoint_fraction.value * verdict.keypoints < 1
