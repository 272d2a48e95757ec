"""Keypoints decoded on a device, on CPU arrays of two libraries, against the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from runtime.device import keypoints as on_device
from runtime.device.library import library_of
from runtime.postprocessing.keypoints import decode

MOST_HW = (90, 120)
BOXES = np.array(
    [
        (3.5, 2.25, 40.75, 61.5),  # up along y, down along x
        (0.0, 0.0, 120.0, 90.0),  # the whole canvas
        (10.0, 20.0, 66.0, 76.0),  # the map's own size
        (50.2, 50.2, 50.4, 50.3),  # below a pixel
        (0.0, 0.0, 0.0, 0.0),  # nothing
        (7.3, 80.1, 99.9, 82.0),  # flat
    ],
    np.float32,
)


def heatmaps(count: int, joints: int = 5, side: int = 56) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 3, (count, joints, side, side)).astype(np.float32)


def decoded(library: str, maps: np.ndarray, boxes: np.ndarray, score: Any) -> np.ndarray:
    arrays: list[Any] = [maps, boxes]
    if library == "torch":
        arrays = [torch.from_numpy(values) for values in arrays]
    xp = library_of(arrays[0]).xp
    return np.asarray(on_device.decode_on_device(xp, *arrays, MOST_HW, score))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("score", ["logit", "softmax"])
@pytest.mark.parametrize("side", [56, 14])
def test_positions_and_scores_equal_the_hosts(library: str, score: Any, side: int) -> None:
    maps = heatmaps(len(BOXES), side=side)
    keypoints = decoded(library, maps, BOXES, score)
    expected = decode(maps, BOXES, score)
    assert keypoints.dtype == np.float32
    np.testing.assert_array_equal(keypoints[..., :2], expected[..., :2])
    np.testing.assert_allclose(keypoints[..., 2], expected[..., 2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_maps_that_are_negative_everywhere(library: str) -> None:
    """Pixels beyond the box must not win."""
    maps = heatmaps(len(BOXES)) - 100
    np.testing.assert_array_equal(
        decoded(library, maps, BOXES, "logit")[..., :2], decode(maps, BOXES)[..., :2]
    )


def test_large_boxes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = heatmaps(2)
    whole = decoded("torch", maps, BOXES[:2], "logit")
    monkeypatch.setattr(on_device, "_BLOCK_PIXELS", 2 * MOST_HW[0] * MOST_HW[1])
    np.testing.assert_array_equal(decoded("torch", maps, BOXES[:2], "logit"), whole)


def test_no_detections() -> None:
    assert decoded("torch", heatmaps(0), BOXES[:0], "logit").shape == (0, 5, 3)
