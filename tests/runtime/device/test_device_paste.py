"""Pasting on a device, on CPU arrays of two libraries, against the host's crops."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from runtime.device import paste as on_device
from runtime.device.library import library_of
from runtime.masks.paste import MaskRule, paste_crops
from tests.oracles import paste as oracle

HW = (150, 200)
RULES = {
    "integer": MaskRule(),
    "integer-inclusive": MaskRule(threshold_inclusive=True),
    "integer-0.3": MaskRule(threshold=0.3),
    "float": MaskRule("float", threshold_inclusive=True),
    "float-0.7": MaskRule("float", threshold=0.7),
    "resize": MaskRule("resize", threshold_inclusive=True),
    "resize-0.2": MaskRule("resize", threshold=0.2),
}
BOXES = {
    "small": (30.2, 40.7, 60.1, 90.3),
    "large": (10.6, 5.5, 181.3, 140.2),
    "whole-image": (0.0, 0.0, 200.0, 150.0),
    "whole-pixels": (20.0, 30.0, 140.0, 110.0),
    "over-the-corner": (-50.5, -70.25, 40.0, 60.0),
    "over-the-far-corner": (170.5, 120.5, 400.0, 300.0),
    "much-larger-than-image": (-700.0, -900.0, 1500.0, 1100.0),
    "astronomic": (-3e9, -3e9, 3e9, 3e9),
    "one-pixel": (100.3, 100.3, 100.9, 100.9),
    "subpixel": (100.4, 90.0, 100.5, 120.0),
    "line": (3.0, 100.0, 190.0, 100.2),
    "kernel-limit-128": (50.0, 50.0, 108.7, 108.7),
    "kernel-limit-129": (50.0, 50.0, 108.7, 109.8),
    "beside-the-image": (250.0, 10.0, 300.0, 60.0),
    "left-of-it": (-90.0, 10.0, -20.0, 60.0),
    "no-size": (40.0, 40.0, 40.0, 40.0),
    "inverted": (60.0, 90.0, 30.0, 40.0),
    "inverted-across": (60.0, 40.0, 30.0, 90.0),
    "nothing": (0.0, 0.0, 0.0, 0.0),
}


def masks(kind: str, count: int, side: int, threshold: float = 0.5) -> np.ndarray:
    uniform = np.random.default_rng(3).random((count, side, side), np.float32)
    if kind == "uniform":
        return uniform
    if kind == "blobs":
        y, x = np.mgrid[:side, :side] / side - 0.5
        slope = np.random.default_rng(4).uniform(4, 12, (count, 1, 1))
        return (1 / (1 + np.exp(slope * (np.hypot(x, y) * 4 - 1)))).astype(np.float32)
    return (threshold + (uniform - 0.5) * np.float32(4e-7)).astype(np.float32)


def on_the_host(probs: np.ndarray, boxes: np.ndarray, rule: MaskRule) -> np.ndarray:
    dense = np.zeros((len(probs), *HW), np.bool_)
    for image, crop in zip(dense, paste_crops(probs, boxes, HW, rule), strict=True):
        width, height = crop.columns.shape
        image[crop.y0_px : crop.y0_px + height, crop.x0_px : crop.x0_px + width] = crop.rows
    return dense


def pasted(library: str, probs: np.ndarray, boxes: np.ndarray, rule: MaskRule) -> np.ndarray:
    arrays: list[Any] = [probs, boxes]
    if library == "torch":
        arrays = [torch.from_numpy(values) for values in arrays]
    result = on_device.paste(library_of(arrays[0]).xp, *arrays, HW, rule)
    return np.asarray(result)


def test_no_pixel_differs(subtests: pytest.Subtests) -> None:
    for library, rule, kind in product(
        ["numpy", "torch"], RULES.values(), ["uniform", "blobs", "close-calls"]
    ):
        with subtests.test(library=library, rule=rule, kind=kind):
            boxes = np.array(list(BOXES.values()), np.float32)
            for side in (28, 7):
                probs = masks(kind, len(boxes), side, rule.threshold)
                result = pasted(library, probs, boxes, rule)
                expected = on_the_host(probs, boxes, rule)
                assert result.dtype == np.bool_
                for row, name in enumerate(BOXES):
                    different = np.count_nonzero(result[row] != expected[row])
                    assert different == 0, f"{name}: {different} of {expected[row].sum()} pixels"
                assert expected[:, 1:-1].any(axis=(1, 2)).sum() >= 5


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("rule", [RULES["integer"], RULES["float"], RULES["resize"]])
def test_random_boxes(library: str, rule: MaskRule) -> None:
    rng = np.random.default_rng(5)
    low = rng.uniform(-60, 220, (60, 2))
    boxes = np.concatenate([low, low + rng.exponential(60, (60, 2))], axis=1).astype(np.float32)
    boxes[::4] = boxes[::4].round()
    probs = masks("blobs", 60, 28)
    np.testing.assert_array_equal(
        pasted(library, probs, boxes, rule), on_the_host(probs, boxes, rule)
    )


@pytest.mark.parametrize("rule", [RULES["integer"], RULES["float"]])
def test_an_oracle_in_float64(rule: MaskRule) -> None:
    """Pixels may differ from slow float64 only at the threshold."""
    paste_one = oracle.paste_integer if rule.paste == "integer" else oracle.paste_float
    probs = masks("blobs", 2, 28)
    boxes = np.array([BOXES["large"], BOXES["over-the-corner"]], np.float32)
    result = pasted("torch", probs, boxes, rule)
    for row in range(2):
        soft = paste_one(probs[row], boxes[row], HW)
        clear = np.abs(soft - rule.threshold) > 1e-5
        assert clear.mean() > 0.999
        np.testing.assert_array_equal(result[row][clear], (soft > rule.threshold)[clear])


def test_memory_is_bounded_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.array(list(BOXES.values()), np.float32)
    probs = masks("uniform", len(boxes), 14)
    whole = pasted("numpy", probs, boxes, RULES["integer"])
    sizes = []
    paste_integer = on_device._RULES["integer"]

    def counting(xp: Any, grids: Any, *others: Any) -> Any:
        sizes.append(len(grids))
        return paste_integer(xp, grids, *others)

    monkeypatch.setitem(on_device._RULES, "integer", counting)
    monkeypatch.setattr(on_device, "_BLOCK_PIXELS", 4 * HW[0] * HW[1] + 1)
    parts = pasted("numpy", probs, boxes, RULES["integer"])
    np.testing.assert_array_equal(parts, whole)
    assert max(sizes) == 4
    assert sum(sizes) == len(boxes)


@pytest.mark.parametrize("rule", [RULES["integer"], RULES["float"], RULES["resize"]])
def test_no_masks(rule: MaskRule) -> None:
    result = pasted("torch", np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), rule)
    assert result.shape == (0, *HW)


def test_a_shifted_box_is_detected() -> None:
    boxes = np.array([BOXES["large"]], np.float32)
    probs = masks("close-calls", 1, 28)
    expected = on_the_host(probs, boxes, RULES["integer"])
    assert (pasted("torch", probs, boxes + 1, RULES["integer"]) != expected).any()
