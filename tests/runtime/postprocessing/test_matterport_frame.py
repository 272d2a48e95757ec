"""Matterport's way from a photo to the canvas and back, against NumPy oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.errors import ImageError
from model.placement import image_windows
from model.spec import BoxHeadSpec, ClassSpec, MaskHeadSpec, ModelSpec, PreprocessSpec, ResNetSpec
from runtime.detections import Detections
from runtime.masks import rle
from runtime.masks.paste import MaskRule, paste_crops
from runtime.postprocessing.from_raw import RawDetections, from_raw
from runtime.preprocessing.canvas import resized_hw, to_canvas
from runtime.preprocessing.skimage_bilinear import resize_uint8
from tests.oracles import matterport as oracle
from tests.oracles.skimage_bilinear import resize as resize_slowly

PREPROCESS = PreprocessSpec(
    800,
    1024,
    "matterport",
    "skimage-bilinear",
    value_range=255.0,
    mean=(123.7, 116.8, 103.9),
    std=(1.0, 1.0, 1.0),
    size_divisor=64,
    square=True,
    placement="centred",
    padding="zero-before",
)
SMALL = replace(PREPROCESS, short_side=96, long_side=128)
SPEC = ModelSpec(
    dialect="matterport",
    architecture="maskrcnn_resnet50_fpn",
    body=ResNetSpec((3, 4, 6, 3), "bottleneck", 64, (64, 128, 256, 512), (256, 512, 1024, 2048)),
    classes=ClassSpec(("background", "cat")),
    preprocess=PREPROCESS,
    box=BoxHeadSpec(to_image="round"),
    mask=MaskHeadSpec(paste="resize", threshold_inclusive=True),
)
RULE = MaskRule("resize", threshold_inclusive=True)
XY = [1, 0, 3, 2]


def noise(*shape: int, seed: int = 0, low: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(low, 256, shape, dtype=np.uint8)


def test_photos_are_resized_to_the_bit(subtests: pytest.Subtests) -> None:
    for case, hw, target in [
        ("up", (9, 14), (23, 31)),
        ("down", (23, 31), (9, 14)),
        ("same", (12, 7), (12, 7)),
        ("one-row", (1, 5), (4, 33)),
        ("to-one-pixel", (40, 40), (1, 1)),
        ("up-and-down", (11, 50), (70, 20)),
    ]:
        with subtests.test(case):
            photo = noise(*hw, 3)
            resized = resize_uint8(photo, target)
            assert resized.shape == (3, *target)
            for channel in range(3):
                expected = resize_slowly(photo[:, :, channel], target, photo).astype(np.uint8)
                np.testing.assert_array_equal(resized[channel], expected)


def test_gray_and_flat_photos_resize_to_their_range() -> None:
    gray = noise(13, 17, low=40)
    expected = resize_slowly(gray, (29, 40)).astype(np.uint8)
    resized = resize_uint8(np.repeat(gray[:, :, None], 3, axis=2), (29, 40))
    np.testing.assert_array_equal(resized[0], expected)
    assert resized.min() == gray.min(), "zeros beyond the edge blend in, but never below the photo"
    # 127.99… would be truncated to 127; the weights of a pixel must add to one exactly.
    for level in (1, 77, 128, 254):
        photo = np.full((37, 53, 3), level, np.uint8)
        inner = resize_uint8(photo, (61, 90))
        assert (inner == level).all()


def test_scipy_agrees_where_it_is_installed() -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is no dependency")
    for hw, target in (((9, 14), (23, 31)), ((48, 64), (37, 90)), ((33, 20), (12, 11))):
        photo = noise(*hw, 3, seed=4)
        zoom = (target[0] / hw[0], target[1] / hw[1], 1)
        exact = ndimage.zoom(
            photo.astype(float), zoom, order=1, mode="grid-constant", grid_mode=True
        )
        expected = np.clip(exact, photo.min(), photo.max()).astype(np.uint8)
        np.testing.assert_array_equal(resize_uint8(photo, target), expected.transpose(2, 0, 1))


def test_sizes_and_places_follow_the_rule() -> None:
    rng = np.random.default_rng(7)
    moved = 0
    for _ in range(400):
        hw = int(rng.integers(20, 3000)), int(rng.integers(20, 3000))
        molded = oracle.mold(hw, 800, 1024)
        assert resized_hw(hw, PREPROCESS) == resized_hw(hw, PREPROCESS, (1024, 1024)) == molded.hw
        place = image_windows(torch.tensor([molded.hw]).float(), (1024, 1024), "centred").origin_yx
        assert tuple(place[0].int().tolist()) == molded.window[:2]
        moved += molded.window[0] > 0
    assert moved > 100


def test_sizes_at_the_limits() -> None:
    assert resized_hw((900, 1000), PREPROCESS) == (900, 1000)
    assert resized_hw((400, 400), PREPROCESS) == (800, 800)
    assert resized_hw((2000, 1000), PREPROCESS) == (1024, 512)
    spec = replace(PREPROCESS, short_side=64, long_side=192)
    assert (150 * 192 / 256, 142 * 192 / 256) == (112.5, 106.5)
    assert resized_hw((256, 150), spec) == (192, 112)
    assert resized_hw((256, 142), spec) == (192, 106)
    with pytest.raises(ImageError, match="0x1024"):
        resized_hw((1, 5000), PREPROCESS)


def test_the_canvas_is_square_and_the_photo_in_its_middle() -> None:
    photos = [noise(60, 47, 3), noise(30, 99, 3, seed=1)]
    canvas = to_canvas(photos, SMALL)
    assert canvas.images.shape == (2, 3, 128, 128)
    for row, photo in enumerate(photos):
        molded = oracle.mold(photo.shape[:2], 96, 128)
        y1, x1, y2, x2 = molded.window
        assert canvas.image_hw[row].tolist() == list(molded.hw)
        assert canvas.origin_yx[row] == (y1, x1)
        np.testing.assert_array_equal(
            canvas.images[row, :, y1:y2, x1:x2], resize_uint8(photo, molded.hw)
        )
        outside = canvas.images[row].copy()
        outside[:, y1:y2, x1:x2] = 0
        assert not outside.any()


def _detections(boxes: NDArray[np.float32], photo_hw: tuple[int, int]) -> Detections:
    rows = len(boxes)
    raw = RawDetections(
        boxes=boxes,
        scores=np.linspace(0.9, 0.8, rows, dtype=np.float32),
        labels=np.ones(rows, np.int32),
        masks=np.full((rows, 28, 28), 0.9, np.float32),
        nms_open=0,
        candidates_cut=0,
    )
    molded = oracle.mold(photo_hw, 800, 1024)
    return from_raw(raw, SPEC, photo_hw, molded.hw, molded.window[:2])


@pytest.mark.parametrize("photo_hw", [(480, 640), (333, 500), (1200, 1600), (50, 40)])
def test_boxes_come_back_in_whole_pixels(photo_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(photo_hw[0])
    molded = oracle.mold(photo_hw, 800, 1024)
    window = np.array(molded.window, np.float64) - [0, 0, 1, 1]
    corners = rng.uniform(window[[0, 1]], window[[2, 3]], (2, 60, 2))
    boxes = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)
    boxes[0] = window
    boxes[1, 2:] = boxes[1, :2]  # empty, unless rounding makes a pixel of it
    boxes = boxes.astype(np.float32).astype(np.float64)
    expected, is_there = oracle.unmold(boxes / 1023, photo_hw, molded, 1024)
    result = _detections(boxes[:, XY].astype(np.float32), photo_hw)
    np.testing.assert_array_equal(result.boxes, expected[is_there][:, XY])
    assert result.boxes[0].tolist() == [0, 0, photo_hw[1], photo_hw[0]]
    assert result.dropped == 0


def test_rounded_boxes_without_area_are_removed() -> None:
    """Halves go to even: 1.5 and 2.5 both become 2, but 0.5 and 1.5 become 0 and 2."""
    points = np.array([[1.5, 1.5, 1.5, 1.5], [0.5, 0.5, 0.5, 0.5]], np.float32)
    result = _detections(points, (1024, 1024))
    assert result.boxes.tolist() == [[0, 0, 2, 2]]
    assert (len(result.scores), result.dropped) == (1, 0)
    boxes = np.array([[300, 511, 400, 511]], np.float32)
    one = np.ones(1, np.float32)
    raw = RawDetections(boxes, one, one.astype(np.int32), None, nms_open=0, candidates_cut=0)
    result = from_raw(raw, replace(SPEC, mask=None), (1, 1000), (1, 1000), (511, 12))
    assert (len(result), result.dropped) == (0, 1)


def _smooth(seed: int, side: int = 28) -> NDArray[np.float32]:
    coarse = np.random.default_rng(seed).random((6, 6))
    return resize_slowly(coarse, (side, side)).astype(np.float32)


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((5, 7, 64, 71), id="up"),
        pytest.param((30, 2, 41, 9), id="down"),
        pytest.param((0, 0, 80, 90), id="whole-photo"),
        pytest.param((10, 10, 38, 38), id="as-large-as-the-mask"),
        pytest.param((79, 89, 80, 90), id="last-pixel"),
        pytest.param((3, 50, 4, 88), id="one-column"),
    ],
)
def test_masks_are_resized_to_their_box(box: tuple[int, int, int, int]) -> None:
    """Box is x0, y0, x1, y1."""
    photo_hw = (90, 80)
    for seed in range(3):
        mask = _smooth(seed)
        crop = next(paste_crops(mask[None], np.array([box], np.float32), photo_hw, RULE))
        assert (crop.x0_px, crop.y0_px) == box[:2]
        dense = np.zeros(photo_hw, np.bool_)
        dense[box[1] : box[3], box[0] : box[2]] = crop.rows
        np.testing.assert_array_equal(dense, oracle.paste(mask, np.array(box)[XY], photo_hw))


def test_masks_at_the_edge() -> None:
    """Zeros around the mask would eat its corners, but for the clip to the mask's range."""
    mask = np.full((28, 28), 0.5, np.float32)
    box = np.array([[3, 4, 60, 50]], np.float32)
    assert next(paste_crops(mask[None], box, (90, 80), RULE)).columns.all()
    mask[14, 14] = 0.0
    crop = next(paste_crops(mask[None], box, (90, 80), RULE))
    expected = oracle.paste(mask, np.array([4, 3, 50, 60]), (90, 80))
    np.testing.assert_array_equal(crop.rows, expected[4:50, 3:60])
    assert not crop.columns[0, 0]
    mask = _smooth(5)
    boxes = np.array([[-20, -30, 40, 50], [200, 10, 250, 60], [9, 9, 9, 40]], np.float32)
    cut, outside, empty = paste_crops(np.repeat(mask[None], 3, 0), boxes, (90, 80), RULE)
    whole = resize_slowly(mask, (80, 60)).astype(np.float32) >= 0.5
    assert (cut.x0_px, cut.y0_px) == (0, 0)
    np.testing.assert_array_equal(cut.rows, whole[30:, 20:])
    assert outside.columns.size == empty.columns.size == 0


def test_dense_masks_and_run_lengths_agree() -> None:
    result = _detections(
        np.array([[100, 200, 400.4, 500], [30, 140, 90, 145]], np.float32), (480, 640)
    )
    masks = result.masks
    for mask, code in zip(masks, result.rle(), strict=True):
        np.testing.assert_array_equal(rle.decode(code), mask)
        assert mask.any()
