"""Run lengths from crossings against run lengths of the pasted pixels, to the byte."""

from __future__ import annotations

import numpy as np
import pytest

from runtime import rle
from runtime.paste import MaskRule, paste_crops
from runtime.runs import encode_pasted

HW = (97, 131)


def _by_pixels(
    masks: np.ndarray, boxes: np.ndarray, hw: tuple[int, int], rule: MaskRule
) -> list[rle.Rle]:
    crops = paste_crops(masks, boxes, hw, rule)
    return [rle.encode(c.columns, c.x0_px, c.y0_px, hw) for c in crops]


def _boxes(rng: np.random.Generator, count: int, hw: tuple[int, int]) -> np.ndarray:
    """Inside, across every border, outside, thin, tiny, inverted and larger than the image."""
    height, width = hw
    corner = rng.uniform(-0.4, 1.1, (count, 2)) * [width, height]
    sides = np.exp(rng.uniform(-2, np.log(2 * max(hw)), (count, 2)))
    sides[::17] *= -1
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def _masks(
    rng: np.random.Generator, kind: str, count: int, side: int, threshold: float = 0.5
) -> np.ndarray:
    if kind == "noise":
        masks = rng.random((count, side, side))
    elif kind == "binary":
        masks = (rng.random((count, side, side)) > 0.5).astype(float)
    elif kind == "flat":
        reach = np.exp(rng.uniform(np.log(1e-6), np.log(1e-2), (count, 1, 1)))
        masks = threshold + reach * rng.normal(size=(count, side, side))
    elif kind == "at-threshold":
        masks = threshold + rng.integers(-3, 4, (count, side, side)) * 6e-8
    else:
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        reach = rng.uniform(0.2, 1.2, (count, 1, 1))
        masks = 1 / (1 + np.exp(-12 * (reach - np.hypot(x, y))))
    return masks.astype(np.float32)


@pytest.mark.parametrize("kind", ["noise", "binary", "at-threshold", "flat", "blob"])
@pytest.mark.parametrize("side", [1, 7, 14, 28])
@pytest.mark.parametrize(
    "rule",
    [
        MaskRule(),
        MaskRule(threshold_inclusive=True),
        MaskRule(threshold=0.3),
        MaskRule(threshold=0.9),
    ],
    ids=["strict", "inclusive", "low", "high"],
)
def test_equal_to_the_pixels(kind: str, side: int, rule: MaskRule) -> None:
    rng = np.random.default_rng(side)
    masks, boxes = _masks(rng, kind, 150, side, rule.threshold), _boxes(rng, 150, HW)
    expected = _by_pixels(masks, boxes, HW, rule)
    assert encode_pasted(masks, boxes, HW, rule) == expected
    if side > 1:
        assert sum(len(e["counts"]) > 4 for e in expected) > 20, "most boxes show something"


@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (300, 1), (480, 640), (1080, 1920)], ids=str)
def test_image_sizes(hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    masks, boxes = _masks(rng, "blob", 60, 28), _boxes(rng, 60, hw)
    assert encode_pasted(masks, boxes, hw, MaskRule()) == _by_pixels(masks, boxes, hw, MaskRule())


def test_crossings_exactly_at_pixel_centres() -> None:
    """Boxes of 30 * 2^k pixels sample cells at exact binary fractions, where ties live."""
    rng = np.random.default_rng(4)
    masks = (rng.integers(0, 5, (64, 28, 28)) / 4).astype(np.float32)
    sides = 28.0 * 2.0 ** rng.integers(-2, 4, (64, 2))
    corner = rng.integers(-30, 60, (64, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    for inclusive in (False, True):
        rule = MaskRule(threshold_inclusive=inclusive)
        expected = _by_pixels(masks, boxes, (200, 300), rule)
        assert encode_pasted(masks, boxes, (200, 300), rule) == expected


@pytest.mark.parametrize("kind", ["binary", "flat"])
def test_each_mask_alone(kind: str) -> None:
    """Coverings of few pixels and of many: a crossing's nearest pixel may be beyond its cells."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        masks = _masks(rng, kind, 50, int(rng.integers(2, 29)))
        corner = rng.uniform(-10, 90, (50, 2))
        sides = np.exp(rng.uniform(0, np.log((8, 8, 120, 600)[seed % 4]), (50, 2)))
        boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
        assert encode_pasted(masks, boxes, HW, MaskRule()) == _by_pixels(
            masks, boxes, HW, MaskRule()
        )


def test_no_masks_and_full_height() -> None:
    none = np.empty((0, 28, 28), np.float32)
    assert encode_pasted(none, np.empty((0, 4), np.float32), HW, MaskRule()) == []
    full = np.ones((2, 28, 28), np.float32)
    boxes = np.array([[-50, -500, 60, 900], [-900, -900, 900, 900]], np.float32)
    assert encode_pasted(full, boxes, HW, MaskRule()) == _by_pixels(full, boxes, HW, MaskRule())
