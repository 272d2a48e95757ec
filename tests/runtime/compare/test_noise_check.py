"""A candidate against eager, where eager's own rounding is beyond a quiet model's limits.

`_rounded` is a noisy model: every row of a run differs by its own heavy-tailed random amount.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from runtime.compare.limits import Verdict
from runtime.compare.matching import compare
from runtime.compare.noise import Noise, measure
from runtime.compare.noise_check import check_with_noise
from runtime.detections import Detections
from tests.runtime.compare.scenes import added, benign_trace, detections, dropped, shifted

ROWS, CLASSES, SIDE = 60, 5, 8
NOISE_PX, NOISE_SCORE, NOISE_MASK = 0.005, 1e-4, 1e-3


def _eager() -> Detections:
    rng = np.random.default_rng(0)
    corner = np.stack(np.meshgrid(np.arange(10) * 35.0, np.arange(6) * 35.0), -1).reshape(-1, 2)
    low = corner + rng.uniform(2, 8, (ROWS, 2))
    boxes = np.concatenate((low, low + rng.uniform(15, 24, (ROWS, 2))), axis=1)
    ramp = np.linspace(0.95, 0.03, SIDE, dtype=np.float32)
    probs = np.broadcast_to(ramp, (ROWS, SIDE, SIDE)).copy()
    labels = [1 + row % CLASSES for row in range(ROWS)]
    scores = np.linspace(0.95, 0.35, ROWS)
    return detections(boxes, list(scores), labels, probs, (220, 360))


def _rounded(result: Detections, seed: int, scale: float = 1.0) -> Detections:
    """Another run of the same noisy model: Student's t with three degrees of freedom, by row."""
    rng = np.random.default_rng(seed)

    def t(sigma: float, *shape: int) -> np.ndarray:
        return (scale * sigma * rng.standard_t(3, shape)).astype(np.float32)

    assert result.mask_probs is not None
    return replace(
        result,
        boxes=result.boxes + t(NOISE_PX, len(result), 4),
        scores=result.scores + t(NOISE_SCORE, len(result)),
        mask_probs=(result.mask_probs + t(NOISE_MASK, len(result), 1, 1)).clip(0, 1),
    )


EAGER = _eager()


def _check(
    candidate: Detections, own: Detections | None = None, eager: Detections = EAGER
) -> tuple[Verdict, Noise | None]:
    own = _rounded(eager, 1) if own is None else own
    trace = benign_trace(eager)
    return check_with_noise(
        [compare(eager, candidate, "a")],
        lambda _: trace,
        lambda: measure([[compare(eager, own, "a")]]),
    )


def test_no_noise_is_measured_within_the_limits() -> None:
    calls: list[int] = []
    verdict, noise = check_with_noise(
        [compare(EAGER, EAGER, "a")], lambda _: None, lambda: calls.append(1) or measure([])
    )
    assert (verdict.passed, noise, calls) == (True, None, [])


def test_a_correct_file_of_a_noisy_model_passes() -> None:
    for seed in range(2, 8):
        verdict, noise = _check(_rounded(EAGER, seed))
        assert noise is not None
        assert noise.worst("box_px") > 0.02
        assert verdict.passed, f"{verdict}: {[*map(str, verdict.statistics)]}"


def test_the_same_difference_of_a_quiet_model_is_refused() -> None:
    verdict, noise = _check(_rounded(EAGER, 2), own=_rounded(EAGER, 1, scale=0.01))
    assert noise is not None
    assert not verdict.passed


def _of_class(change: Callable[[Detections, int], Detections]) -> Callable[..., Detections]:
    def changed(result: Detections) -> Detections:
        for row in np.flatnonzero(result.labels == 2).tolist():
            result = change(result, row)
        return result

    return changed


def _scores(factor: float) -> Callable[[Detections], Detections]:
    return lambda r: replace(r, scores=r.scores * np.float32(factor))


def _swapped(result: Detections) -> Detections:
    swap = np.arange(CLASSES + 1)
    swap[[2, 3]] = 3, 2
    return replace(result, labels=swap[result.labels])


def _transposed(result: Detections) -> Detections:
    assert result.mask_probs is not None
    probs = result.mask_probs.copy()
    probs[7] = probs[7].T
    return replace(result, mask_probs=probs)


FAULTS: dict[str, tuple[Callable[[Detections], Detections], str]] = {
    "all boxes shifted": (
        lambda r: replace(r, boxes=r.boxes + np.float32(0.03)),
        "median of box_px",
    ),
    "all scores a thousandth higher": (_scores(1.001), "median of score"),
    "boxes of one class shifted": (
        _of_class(lambda r, row: shifted(r, row, 0.3)),
        "median of class 2 of box_px",
    ),
    "two classes swapped": (_swapped, "unmatched"),
    "last row dropped": (lambda r: dropped(r, ROWS - 1), "unmatched"),
    "mask transposed": (_transposed, "mask_probability"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_a_noisy_model_is_refused(kind: str) -> None:
    fault, reason = FAULTS[kind]
    for seed in range(2, 4):
        verdict, _ = _check(fault(_rounded(EAGER, seed)))
        assert not verdict.passed
        reasons = [*map(str, verdict.statistics), *map(str, verdict.excesses)]
        assert any(reason in line for line in reasons), reasons


def test_rows_that_eager_itself_loses_are_explained() -> None:
    lost = dropped(_rounded(EAGER, 2), 5)
    alone, _ = _check(lost)
    assert alone.unexplained_rows == 1
    both, _ = _check(lost, own=dropped(_rounded(EAGER, 1), 5))
    assert both.passed
    assert both.limits.near_tie_floor.value > alone.limits.near_tie_floor.value
    (excess,) = [e for e in both.excesses if e.quantity == "unmatched"]
    assert excess.near_tie == "another run of eager changes this row too"
    other, _ = _check(lost, own=dropped(_rounded(EAGER, 1), 6))
    assert other.unexplained_rows == 1


def test_a_row_that_eager_itself_replaces_is_no_reason_for_a_shorter_result() -> None:
    replaced = added(dropped(_rounded(EAGER, 1), 5), 20)
    shorter, _ = _check(dropped(_rounded(EAGER, 2), 5), own=replaced)
    assert shorter.unexplained_rows == 1
    full, _ = _check(added(dropped(_rounded(EAGER, 2), 5), 20), own=replaced)
    assert full.passed


def test_rows_that_eager_itself_gains_are_explained() -> None:
    eager = dropped(EAGER, 5)
    gained, _ = _check(_rounded(EAGER, 2), own=_rounded(EAGER, 1), eager=eager)
    assert gained.passed
    alone, _ = _check(_rounded(EAGER, 2), own=_rounded(eager, 1), eager=eager)
    assert alone.unexplained_rows == 1


def test_a_nan_is_beyond_every_statistic() -> None:
    comparison = compare(EAGER, _rounded(EAGER, 2), "a")
    comparison.score_diff[:] = np.nan
    noise = measure([[compare(EAGER, _rounded(EAGER, 1), "a")]])
    trace = benign_trace(EAGER)
    verdict, _ = check_with_noise([comparison], lambda _: trace, lambda: noise)
    assert not verdict.passed
    assert ("median", "score") in [(e.statistic, e.quantity) for e in verdict.statistics]
