"""Run lengths of the C kernel against those of the pasted pixels, to the byte."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest

from runtime.masks import rle
from runtime.masks.axes import grown_integer_boxes, resize_taps
from runtime.masks.paste import MaskRule, paste_crops
from runtime.masks.rle_from_masks import encode_pasted

HW = (97, 131)
FLOAT = MaskRule("float", threshold_inclusive=True)


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


def test_equal_to_the_pixels(subtests: pytest.Subtests) -> None:
    for kind, side, rule in product(
        ["noise", "binary", "at-threshold", "flat", "blob"],
        [1, 7, 14, 28],
        [
            MaskRule(),
            MaskRule(threshold_inclusive=True),
            MaskRule(threshold=0.3),
            MaskRule(threshold=0.9),
            FLOAT,
            MaskRule("float", threshold=0.25),
        ],
    ):
        with subtests.test(kind=kind, side=side, rule=rule):
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
    for rule in (MaskRule(), FLOAT):
        assert encode_pasted(masks, boxes, hw, rule) == _by_pixels(masks, boxes, hw, rule)


def test_crossings_exactly_at_pixel_centers() -> None:
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
        for rule in (MaskRule(), FLOAT):
            assert encode_pasted(masks, boxes, HW, rule) == _by_pixels(masks, boxes, HW, rule)


def test_no_masks_and_full_height() -> None:
    none = np.empty((0, 28, 28), np.float32)
    assert encode_pasted(none, np.empty((0, 4), np.float32), HW, MaskRule()) == []
    full = np.ones((2, 28, 28), np.float32)
    boxes = np.array([[-50, -500, 60, 900], [-900, -900, 900, 900]], np.float32)
    for rule in (MaskRule(), FLOAT):
        assert encode_pasted(full, boxes, HW, rule) == _by_pixels(full, boxes, HW, rule)


def _profile_mask(
    rng: np.random.Generator, side: int, height: float
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """A mask that changes downwards only, its box, and thresholds at values of its worst pixel.

    The worst pixel is the one that float32 coordinates move most; thresholds are its value in
    float32, the neighbors of that, its value in exact arithmetic, and what lies between.
    """
    profile = (rng.random(side) > 0.5).astype(np.float32)
    profile[0] = 1
    mask = np.repeat(profile[None, :, None], side, axis=2)
    box = np.array([[3, 2, 9, 2 + height]], np.float32)
    x0, y0, x1, y1 = grown_integer_boxes(box, side)[0].tolist()
    size, cells = y1 - y0 + 1, side + 3
    is_small = (x1 - x0 + 1) + size <= 128
    pixel = np.arange(max(-y0, 0), size)
    sizes, smalls = np.full(pixel.size, size), np.full(pixel.size, is_small)
    cell, upper = resize_taps(pixel, sizes, smalls, cells)
    grid = np.pad(profile, (1, 2)).astype(np.float64)
    rounded = grid[cell] * (1 - upper.astype(np.float64)) + grid[cell + 1] * upper
    place = np.maximum((pixel + 0.5) * (cells - 1) / size - 0.5, 0)
    below = np.minimum(place.astype(int), cells - 2)
    exact = grid[below] * (below + 1 - place) + grid[below + 1] * (place - below)
    moved = np.abs(rounded - exact) * ((rounded > 1e-3) & (rounded < 0.999))
    worst = int(np.argmax(moved))
    at = np.float32(rounded[worst])
    near = [at, np.nextafter(at, np.float32(2)), np.nextafter(at, np.float32(-1))]
    near += [np.float32(exact[worst]), np.float32((exact[worst] + rounded[worst]) / 2)]
    return mask, box, [float(t) for t in near if 0 < t < 1]


@pytest.mark.parametrize("side", [14, 28, 56, 112, 160, 224])
def test_thresholds_at_the_value_of_the_pixel_that_rounding_moves_most(side: int) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        mask, box, thresholds = _profile_mask(rng, side, float(np.exp(rng.uniform(3, 8.5))))
        hw = (int(box[0, 3]) + side, 12)
        for threshold in thresholds:
            for inclusive in (False, True):
                rule = MaskRule(threshold=threshold, threshold_inclusive=inclusive)
                expected = _by_pixels(mask, box, hw, rule)
                assert encode_pasted(mask, box, hw, rule) == expected, (seed, threshold)


@pytest.mark.parametrize("side", [2, 3, 28])
def test_tall_boxes_whose_masks_cross_the_threshold_flatly(side: int) -> None:
    """Neighboring pixels differ by less than rounding: along a column they turn back and forth."""
    for seed in range(24):
        rng = np.random.default_rng(seed)
        threshold = (0.3, 0.5, 0.77, 0.9)[seed % 4]
        reach = np.exp(rng.uniform(np.log(1.2e-5), np.log(1e-4)))
        signs = rng.choice([-1, 1], (4, side, side))
        masks = (threshold + signs * reach).astype(np.float32)
        height = 4000 * np.exp(rng.uniform(0, 3))
        top = rng.uniform(4000 - height, 0)
        boxes = np.tile(np.array([[-20, top, 40, top + height]], np.float32), (4, 1))
        for paste in ("integer", "float"):
            rule = MaskRule(paste, threshold=threshold)
            expected = _by_pixels(masks, boxes, (4000, 6), rule)
            assert encode_pasted(masks, boxes, (4000, 6), rule) == expected, seed


def test_an_image_that_is_very_wide_or_large() -> None:
    width = 2**24 + 3
    boxes = np.array([[width - 200, 0, width + 800, 3]], np.float32)
    result = encode_pasted(np.ones((1, 28, 28), np.float32), boxes, (2, width), FLOAT)
    assert rle.area(result[0]) == 2 * 200
    # A pixel near cell 110: there float32 moves the coordinate four times as far as at 28.
    mask = np.zeros((1, 112, 112), np.float32)
    mask[0, :111] = 1
    box = np.array([[4000, 4000, 7526.517578125, 7526.517578125]], np.float32)
    rule = MaskRule(threshold=0.19840240478515625)
    hw = (9000, 9000)
    assert encode_pasted(mask, box, hw, rule) == _by_pixels(mask, box, hw, rule)


def test_masks_at_the_threshold_take_no_more_memory_than_their_blocks() -> None:
    """A row of logits that are zero is a row at the threshold: every column is a doubtful one."""
    masks = np.zeros((20, 28, 28), np.float32)
    masks[:, 4:24] = 1
    masks[:, 13] = 0.5
    hw = (1080, 1920)
    boxes = np.tile(np.array([[20, 20, 1900, 1060]], np.float32), (20, 1))
    tracemalloc.start()
    try:
        result = encode_pasted(masks, boxes, hw, MaskRule())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result[:1] == _by_pixels(masks[:1], boxes[:1], hw, MaskRule())
    assert result == result[:1] * 20
    assert peak < 64e6, f"{peak / 1e6:.0f} MB"
