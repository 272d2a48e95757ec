"""Heat maps to keypoints: against a float64 oracle, torchvision, and detectron2's own results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.arrays import Float32
from model.errors import ArtifactError
from runtime.postprocessing.bicubic import Cells, cell_bounds, cell_values, padded, resize_axis
from runtime.postprocessing.keypoints import MOST_SIDE_PX, decode
from tests.oracles.keypoints import keypoint, margin, resized_map
from tests.oracles.pooling import float32_error

# Width and height of boxes: smaller than a map, thin, one side an integer, larger, much larger.
SIDES = {
    "dot": (0.2, 0.4),
    "small": (5.3, 9.8),
    "thin": (3.1, 71.5),
    "integer": (12.0, 30.5),
    "map": (16.0, 16.0),
    "large": (61.7, 44.2),
    "larger": (150.4, 90.9),
}


def heatmaps(seed: int, count: int = 3, side: int = 16, smooth: bool = True) -> Float32:
    """Maps of a few bumps, or of noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(1, count, side, side)).astype(np.float32)
    if not smooth:
        return noise
    y, x = np.mgrid[:side, :side]
    centers = rng.uniform(-1, side, (count, 4, 2))
    squared = (y - centers[..., 0, None, None]) ** 2 + (x - centers[..., 1, None, None]) ** 2
    bumps = (rng.uniform(4, 9, (count, 4, 1, 1)) * np.exp(-squared / 5)).sum(axis=1)
    return (bumps + 0.2 * noise).astype(np.float32)


def box(sides: tuple[float, float], seed: int) -> Float32:
    low = np.random.default_rng(seed).integers(0, 40, 2) + 0.25
    return np.array([[*low, *(low + sides)]], np.float32)


@pytest.mark.parametrize("smooth", [True, False], ids=["bumps", "noise"])
@pytest.mark.parametrize("kind", SIDES)
def test_decode_is_the_oracles(kind: str, smooth: bool) -> None:
    checked = 0
    for seed in range(3):
        maps, boxes = heatmaps(seed, smooth=smooth), box(SIDES[kind], seed)
        logit, share = (decode(maps, boxes, s)[0] for s in ("logit", "softmax"))
        assert logit.dtype == np.float32
        np.testing.assert_array_equal(logit[:, :2], share[:, :2])
        for j, heatmap in enumerate(maps[0]):
            x, y, peak, of_all = keypoint(heatmap, boxes[0])
            error = float32_error([heatmap])
            assert logit[j, 2] == pytest.approx(peak, abs=error)
            assert share[j, 2] == pytest.approx(of_all, rel=error)
            if margin(heatmap, boxes[0], 0) > 1e-4:
                # Two roundings below 256 px.
                np.testing.assert_allclose(logit[j, :2], (x, y), rtol=0, atol=2.0**-16)
                checked += 1
    assert checked >= 7


@pytest.mark.parametrize("side", [1, 2, 5, 56])
@pytest.mark.parametrize("wh", [(1, 1), (2, 40), (57, 9), (200, 130)])
def test_cells_hold_every_pixel_once_and_within_their_bound(side: int, wh: tuple[int, int]) -> None:
    maps = heatmaps(side, 2, side, smooth=False)[0]
    down, across = resize_axis(side, wh[1]), resize_axis(side, wh[0])
    samples = padded(maps)
    bounds = cell_bounds(samples, down, across)
    assert bounds.shape == (2, side + 1, side + 1)
    cells = Cells(*np.nonzero(np.isfinite(bounds)))
    values = cell_values(samples, down, across, cells)
    result = np.full((2, wh[1], wh[0]), np.nan)
    for n, (plane, row, column) in enumerate(
        zip(cells.plane, cells.row, cells.column, strict=True)
    ):
        here = values[n][np.ix_(*(np.isfinite(values[n]).any(axis=a) for a in (1, 0)))]
        y, x = down.first[row], across.first[column]
        assert np.isnan(result[plane, y : y + here.shape[0], x : x + here.shape[1]]).all()
        result[plane, y : y + here.shape[0], x : x + here.shape[1]] = here
        assert here.max() <= bounds[plane, row, column] + float32_error([maps])
    for plane in range(2):
        expected = resized_map(maps[plane], wh[1], wh[0])
        np.testing.assert_allclose(result[plane], expected, rtol=0, atol=float32_error([maps]))


def test_of_equal_peaks_the_first_in_row_order() -> None:
    maps = np.zeros((1, 1, 8, 8), np.float32)
    maps[0, 0, [2, 2, 5], [1, 6, 3]] = 3.0
    boxes = np.array([[10, 20, 18, 28]], np.float32)
    np.testing.assert_array_equal(decode(maps, boxes)[0, 0], [11.5, 22.5, 3.0])
    np.testing.assert_array_equal(decode(0 * maps, boxes)[0, 0], [10.5, 20.5, 0.0])


def test_no_detections() -> None:
    none = np.zeros((0, 4), np.float32)
    assert decode(np.zeros((0, 17, 56, 56), np.float32), none).shape == (0, 17, 3)


@pytest.mark.parametrize("far", [MOST_SIDE_PX * 2, 3e38, np.inf, np.nan])
def test_a_box_larger_than_any_canvas_is_refused(far: float) -> None:
    boxes = np.array([[0, 0, 10, far]], np.float32)
    with pytest.raises(ArtifactError, match="at most 65536 canvas pixels a side"):
        decode(heatmaps(0), boxes)


def test_a_box_of_a_whole_photo_needs_little_memory() -> None:
    """All pixels of one such map in float32 would be 32 MB, of 17 of them 544 MB."""
    import tracemalloc

    maps = heatmaps(1, 17, 56)
    boxes = np.array([[0, 0, 4000, 2000]], np.float32)
    tracemalloc.start()
    decode(maps, boxes)
    _, smooth = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    decode(np.zeros((1, 1, 56, 56), np.float32), boxes)
    _, flat = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(smooth, flat) < 40e6


def both_sizes() -> tuple[Float32, Float32]:
    """Maps of 56 x 56 and boxes of every kind of size, D = 7."""
    maps = np.concatenate([heatmaps(seed, 17, 56) for seed in range(len(SIDES))])
    boxes = np.concatenate([box(sides, seed) for seed, sides in enumerate(SIDES.values())])
    boxes[:, 2:] += 3 * (boxes[:, 2:] - boxes[:, :2])
    return maps, boxes


def test_decode_is_torchvisions() -> None:
    torch = pytest.importorskip("torch")
    heads = pytest.importorskip("torchvision.models.detection.roi_heads")
    maps, boxes = both_sizes()
    theirs, scores = heads.heatmaps_to_keypoints(torch.tensor(maps), torch.tensor(boxes))
    ours = decode(maps, boxes)
    np.testing.assert_array_equal(ours[..., :2], theirs[..., :2].numpy())
    np.testing.assert_allclose(ours[..., 2], scores.numpy(), rtol=0, atol=float32_error([maps]))


@pytest.mark.data
def test_decode_is_detectron2s(data_folder: Path) -> None:
    """Its own heat maps and boxes to its own keypoints; it rounds in another order."""
    folder = data_folder / "golden" / "detectron2" / "f_keypoint_rcnn_R_50_FPN"
    stored = np.load(folder / "golden.npz")
    images = json.loads((folder / "golden.json").read_text("utf-8"))["images"]
    assert len(images) == 4
    for i, image in enumerate(images):
        maps = stored[f"img{i}_keypoint_heatmaps_first5"]
        boxes = stored[f"img{i}_net_boxes"][: len(maps)]
        expected = stored[f"img{i}_keypoints"][: len(maps)]
        _, height, width = image["input_shape"]
        scale = np.array([image["width"] / width, image["height"] / height, 1.0])
        result = decode(maps, boxes, "softmax") * scale
        np.testing.assert_allclose(result[..., :2], expected[..., :2], rtol=0, atol=1e-3)
        np.testing.assert_allclose(result[..., 2], expected[..., 2], rtol=float32_error([maps]))
