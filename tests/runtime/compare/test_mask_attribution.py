"""Masks alone: pixels at the threshold, paste edges, the mask head's level."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.compare.attribution import explain
from runtime.compare.limits import Verdict, check
from runtime.compare.matching import compare
from runtime.detections import Detections
from tests.runtime.compare.scenes import SIDE, SPEC, benign_trace, detections

BOX = (20.3, 20.3, 100.3, 100.3)


def _probs(plateau: float) -> NDArray[np.float32]:
    """A mask whose middle third is at `plateau`, its left above and its right below 0.5."""
    row = np.array([0.9] * 3 + [plateau] * 2 + [0.1] * 3, dtype=np.float32)
    return np.broadcast_to(row, (1, SIDE, SIDE)).copy()


def _result(
    probs: NDArray[np.float32],
    box: tuple[float, ...] = BOX,
    paste: Literal["integer", "float"] = "integer",
) -> Detections:
    return replace(detections([box], [0.9], [1], probs), paste=paste)


def _check(
    reference: Detections, candidate: Detections, paste: Literal["integer", "float"] = "integer"
) -> Verdict:
    if SPEC.mask is None:
        raise ValueError("the test's spec has a mask head")
    spec = replace(SPEC, mask=replace(SPEC.mask, paste=paste))
    comparison = compare(reference, candidate, "a")
    trace = benign_trace(reference, spec)
    return explain(check([comparison]), [comparison], lambda _: trace)


@pytest.mark.parametrize("paste", ["integer", "float"])
def test_pixels_at_the_threshold_explain(paste: Literal["integer", "float"]) -> None:
    above, below = (_result(_probs(p), paste=paste) for p in (0.50001, 0.49999))
    verdict = _check(above, below, paste)
    assert [e.quantity for e in verdict.excesses] == ["mask_iou"]
    assert verdict.excesses[0].got < 0.9
    assert verdict.excesses[0].near_tie.startswith("mask probability 0.5000")


def test_other_probabilities_are_not_explained(subtests: pytest.Subtests) -> None:
    for case, reference, candidate in [
        ("far from the threshold", _probs(0.6), _probs(0.4)),
        ("beyond epsilon", _probs(0.5002), _probs(0.4998)),
        ("flipped", _probs(0.1), _probs(0.1)[:, :, ::-1]),
    ]:
        with subtests.test(case):
            verdict = _check(_result(reference), _result(candidate))
            assert {e.quantity for e in verdict.excesses} >= {"mask_iou"}
            assert not any(e.near_tie for e in verdict.excesses)


# Expanded by 10 / 8 about its center, the left edge is at 10.
EDGE = (20.0, 20.3, 100.0, 100.3)


def test_paste_edge_at_an_integer(subtests: pytest.Subtests) -> None:
    for case, by_px, near_tie in [
        ("over the integer", -2e-4, "paste edge 10 is 0 from 10"),
        ("on the same side", 2e-4, None),
    ]:
        with subtests.test(case):
            moved = (EDGE[0] + by_px, EDGE[1], EDGE[2] + by_px, EDGE[3])
            verdict = _check(_result(_probs(0.1), EDGE), _result(_probs(0.1), moved))
            if near_tie is None:
                assert verdict.excesses == ()
            else:
                assert [e.quantity for e in verdict.excesses] == ["mask_iou"]
                assert verdict.excesses[0].near_tie.startswith(near_tie)
                assert "x0 of the expanded box" in verdict.excesses[0].near_tie


def test_masks_that_no_paste_edge_explains() -> None:
    start = (20.005, 20.3, 100.005, 100.3)
    moved = (19.997, 20.3, 99.997, 100.3)
    verdict = _check(_result(_probs(0.1), start), _result(_probs(0.1), moved))
    assert [(e.quantity, bool(e.near_tie)) for e in verdict.excesses] == [("mask_iou", False)]
    moved = (EDGE[0] - 2e-4, EDGE[1], EDGE[2] - 2e-4, EDGE[3])
    other = np.ascontiguousarray(_probs(0.1)[:, :, ::-1])
    verdict = _check(_result(_probs(0.1), EDGE), _result(other, moved))
    assert verdict.unexplained_rows == 1
    verdict = _check(_result(_probs(0.1)), replace(_result(_probs(0.1)), mask_probs=None))
    assert verdict.unexplained_rows == 1


def test_level_of_the_mask_roi(subtests: pytest.Subtests) -> None:
    for case, side_px, explained in [("boundary", 112.0, True), ("inside a level", 120.0, False)]:
        with subtests.test(case):
            box = (20.25, 20.25, 20.25 + side_px, 20.25 + side_px)
            verdict = _check(_result(_probs(0.6), box), _result(_probs(0.4), box))
            assert [e.quantity for e in verdict.excesses] == ["mask_probability", "mask_iou"]
            for excess in verdict.excesses:
                assert ("level rule" in excess.near_tie) is explained
                assert ("mask RoI" in excess.near_tie) is explained
