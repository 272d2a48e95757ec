"""Agreement AP: 1 for a copy, less for each loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.errors import UsageError
from runtime.compare.agreement import agreement_ap
from tests.runtime.compare.scenes import detections, dropped, flipped, rows_of, scene

pytest.importorskip("pycocotools")


def test_changes_cost_what_they_change() -> None:
    results = [scene(0), scene(1)]
    agreement = agreement_ap(results, [rows_of(result, range(12)[::-1]) for result in results])
    assert agreement.box.ap == pytest.approx(1.0)
    assert agreement.mask.ap == pytest.approx(1.0)
    # Label 2 has four rows; without the last one the recall ends at 0.75: 76 of 101 thresholds.
    result = detections(scene().boxes, list(scene().scores), [1, 2, 3] * 4)
    agreement = agreement_ap([result], [dropped(result, 10)])
    assert agreement.box.ap == pytest.approx((1 + 1 + 76 / 101) / 3)
    assert agreement.mask is None
    agreement = agreement_ap([scene()], [flipped(scene(), 4)])
    assert agreement.box.ap == pytest.approx(1.0)
    assert agreement.mask.ap < 0.95


def test_results_without_ap() -> None:
    result = scene()
    scores = result.scores.copy()
    scores[9:] = [0.3, 0.29999, 0.1]
    unsure = replace(result, scores=scores)
    sure = rows_of(unsure, range(10))
    assert agreement_ap([unsure], [sure]).box.ap == pytest.approx(1.0)
    assert agreement_ap([unsure], [unsure]).box.ap == pytest.approx(1.0)
    assert agreement_ap([unsure], [rows_of(unsure, range(9))]).box.ap < 1.0
    empty = detections(np.zeros((0, 4)), [], [])
    assert agreement_ap([empty], [scene(with_masks=False)]).box.ap == -1.0
    assert agreement_ap([scene(with_masks=False)], [empty]).box.ap == 0.0
    with pytest.raises(UsageError, match="masks in all results or in none"):
        agreement_ap([scene()], [scene(with_masks=False)])


@pytest.mark.parametrize("count", [0, 2], ids=["none", "too many"])
def test_lengths_must_agree(count: int) -> None:
    with pytest.raises(UsageError, match=f"got {count} and {min(count, 1)}"):
        agreement_ap([scene()] * min(count, 1), [scene()] * count)
