"""Run lengths and polygons of thousands of pasted masks against pycocotools and the pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from bench import masks
from model.spec import PasteRule
from runtime.detections import Detections
from tests.oracles.polygons import rasterize

pytest.importorskip("pycocotools.mask")


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(170, id="short"),
        pytest.param(10_000, id="full", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
@pytest.mark.parametrize("rule", get_args(PasteRule))
def test_run_lengths_are_pycocotools_and_polygons_hold_the_pixels(
    rule: PasteRule, count: int
) -> None:
    counts = masks.check(count, seed=11, rules=[rule])
    assert sum(c.masks for c in counts) == count
    assert [c for c in counts if not c.has_passed] == []
    # The proof is about pixels, not about an IoU.
    assert sum(c.simplified_same for c in counts) == count
    for kind in ("empty", "full", "single", "large"):
        assert sum(getattr(c, kind) for c in counts) > 0, kind


def test_a_wrong_mask_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: one pixel more in every mask makes run lengths and outlines fail."""
    dense = Detections.masks.fget
    assert dense is not None

    def wrong(self: Detections) -> object:
        result = dense(self)
        result[:, -1, -1] ^= True
        return result

    monkeypatch.setattr(Detections, "masks", property(wrong))
    for count in masks.check(60, seed=3, rules=["integer"]):
        assert count.identical == count.exact_outlines == 0
        assert not count.has_passed


@pytest.mark.parametrize("rule", get_args(PasteRule))
def test_the_fast_rasterizer_is_the_slow_one(rule: PasteRule) -> None:
    rng = np.random.default_rng(5)
    for _, result in masks.random_detections(rule, 20, rng):
        small = replace(result, image_hw=(23, 31))
        for parts in small.polygons(1.0):
            rings = [ring for part in parts for ring in (part.exterior, *part.holes)]
            np.testing.assert_array_equal(
                masks.rasterize(parts, (23, 31)), rasterize(rings, (23, 31))
            )
