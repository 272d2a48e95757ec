"""Odd photos, odd batches and odd boxes, each against the eager model or its own paste."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import resize_boxes

from export.parity.check import with_threshold
from export.parity.torchvision_reference import TorchvisionEager
from model.checkpoint import load
from model.errors import ImageError
from runtime.compare.attribution import explain
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.detections import Detections
from runtime.postprocessing.from_raw import RawDetections, from_raw
from runtime.predictor import Predictor
from tests.lively import picture
from tests.oracles.paste import paste_integer
from tests.reliability import tiny

UInt8 = NDArray[np.uint8]

# Height and width of photos that the eager model takes.
SIZES = {
    "one-pixel": (1, 1),
    "row-of-two": (1, 2),
    "column-of-three": (3, 1),
    "longest-row": (1, 96),
    "longest-column": (96, 1),
    "two-pixels-high": (2, 150),
    "two-pixels-wide": (150, 2),
    "smaller-than-a-cell": (3, 3),
    "odd": (31, 33),
    "canvas-exactly": (64, 96),
    "canvas-and-a-pixel": (65, 97),
    "canvas-less-a-pixel": (63, 95),
    "square": (96, 96),
    "portrait": (96, 64),
    "flat": (7, 640),
    "narrow": (640, 7),
    "large": (1080, 1920),
    "ten-thousand-wide": (110, 10_000),
    "ten-thousand-high": (10_000, 110),
}
# The resize rule leaves nothing of these, and the eager model fails.
VANISHING = {
    "no-rows": (0, 40),
    "no-columns": (40, 0),
    "nothing": (0, 0),
    "ten-thousand-in-a-row": (1, 10_000),
    "ten-thousand-in-a-column": (10_000, 1),
    "just-too-long": (1, 97),
}
# Original-image pixels of an image of 40 x 60 (or of the image that the case names).
BOXES: dict[str, tuple[float, float, float, float]] = {
    "usual": (10.2, 8.7, 30.1, 25.3),
    "whole-image": (0, 0, 60, 40),
    "sub-pixel": (20.3, 20.4, 20.6, 20.5),
    "sub-pixel-on-a-border": (19.9, 20.0, 20.1, 20.2),
    "zero-width": (20, 5, 20, 30),
    "zero-height": (5, 20, 30, 20),
    "a-point": (20, 20, 20, 20),
    "a-point-at-the-origin": (0, 0, 0, 0),
    "a-point-at-the-end": (60, 40, 60, 40),
    "first-pixel": (0, 0, 1, 1),
    "last-pixel": (59, 39, 60, 40),
    "left-border": (0, 5, 12, 20),
    "top-border": (5, 0, 20, 12),
    "right-border": (45.5, 5, 60, 20),
    "bottom-border": (5, 30.5, 20, 40),
    "over-the-left": (-9.5, 5, 12, 20),
    "over-the-top": (5, -9.5, 20, 12),
    "over-the-right": (45, 5, 75.5, 20),
    "over-the-bottom": (5, 30, 20, 55.5),
    "over-every-border": (-30, -20, 90, 60),
    "far-larger": (-800.5, -900.25, 900, 1000),
    "off-the-left": (-30, 5, -10, 20),
    "off-the-top": (5, -30, 20, -10),
    "off-the-right": (80, 5, 95, 20),
    "off-the-bottom": (5, 60, 20, 80),
    "far-off": (5000, 5000, 5100, 5200),
    "just-outside": (62.6, 10, 70, 20),
    "long-line": (-500, 20.2, 500, 20.6),
}
IMAGES = {"40x60": (40, 60), "one-pixel": (1, 1), "one-row": (1, 60), "one-column": (40, 1)}


@pytest.fixture(scope="module")
def eager(tiny_weights: Path) -> TorchvisionEager:
    return TorchvisionEager(load(tiny_weights))


@pytest.fixture(scope="module")
def full(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    """Of any score: as many detections as there is room for."""
    path = tmp_path_factory.mktemp("full") / "full.onnx"
    with_threshold(tiny_onnx, path, 0.0)
    with Predictor.open(path, threads=1) as predictor:
        yield predictor


def _agree(
    eager: TorchvisionEager, photos: list[UInt8], detections: list[Detections], threshold: float
) -> int:
    """Compare results with the eager model's of the same batch.

    In a photo of one color scores tie, and rounding decides most rows. Each of them needs a near
    tie all the same.

    Returns:
        the number of detections.
    """
    runs = eager.run_batch(photos, threshold)
    pairs = enumerate(zip(runs, detections, strict=True))
    compared = [compare(r.detections, d, str(i)) for i, (r, d) in pairs]
    verdict = explain(check(compared), compared, lambda name: runs[int(name)].trace)
    is_flat = all((p == p[0, 0]).all() for p in photos)
    has_passed = all(e.near_tie for e in verdict.excesses) if is_flat else verdict.passed
    assert has_passed, "\n".join(map(str, [verdict, *verdict.excesses]))
    assert [d.image_hw for d in detections] == [p.shape[:2] for p in photos]
    return verdict.detections


def test_photos_of_odd_sizes(
    eager: TorchvisionEager, predictor: Predictor, full: Predictor, subtests: pytest.Subtests
) -> None:
    for name, size in SIZES.items():
        with subtests.test(name):
            photo = picture(*size, seed=4)
            threshold = predictor.spec.box.score_threshold
            _agree(eager, [photo], predictor.predict([photo]), threshold)
            detections = full.predict([photo])
            assert _agree(eager, [photo], detections, 0.0) == len(detections[0]) > 0


def test_photos_that_the_resize_rule_leaves_nothing_of(
    eager: TorchvisionEager, predictor: Predictor, subtests: pytest.Subtests
) -> None:
    for name, size in VANISHING.items():
        with subtests.test(name):
            photo = np.zeros((*size, 3), np.uint8)
            with pytest.raises(ImageError, match=r"expected at least 1x1|by the resize rule"):
                predictor.predict(photo)
            with pytest.raises((RuntimeError, ZeroDivisionError, ValueError)):
                eager.run(photo)


def test_no_photo_at_all(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.predict((), batch_size=17) == []


@pytest.mark.parametrize("count", [1, 2, 17])
def test_batches_of_every_size(count: int, eager: TorchvisionEager, predictor: Predictor) -> None:
    sizes = [size for size in SIZES.values() if min(size) > 30 and max(size) < 2000]
    photos = [picture(*sizes[i % len(sizes)], seed=i) for i in range(count)]
    detections = predictor.predict(photos, batch_size=count)
    assert _agree(eager, photos, detections, predictor.spec.box.score_threshold) > 0
    one_by_one = predictor.predict(photos, batch_size=5)
    assert [d.image_hw for d in one_by_one] == [d.image_hw for d in detections]


def test_blank_photos(
    eager: TorchvisionEager, predictor: Predictor, tiny_onnx: Path, tmp_path: Path
) -> None:
    path = tmp_path / "strict.onnx"
    with_threshold(tiny_onnx, path, 0.999)
    with Predictor.open(path, threads=1) as strict:
        for value in (0, 114, 255):
            photo = np.full((48, 64, 3), value, np.uint8)
            threshold = predictor.spec.box.score_threshold
            _agree(eager, [photo], predictor.predict([photo]), threshold)
            detections = strict.predict(photo)
            assert len(detections) == 0 == len(eager.run(photo, 0.999).detections)
            assert detections.boxes.shape == (0, 4)
            assert detections.masks is not None
            assert detections.masks.shape == (0, 48, 64)
            assert detections.rle() == detections.crops() == []


def test_as_many_detections_as_there_is_room_for(eager: TorchvisionEager, full: Predictor) -> None:
    photo = tiny.photo()
    detections = full.predict(photo)
    assert len(detections) == tiny.DETECTIONS
    assert _agree(eager, [photo], [detections], 0.0) == tiny.DETECTIONS


def _pasted(box: tuple[float, ...], image_hw: tuple[int, int]) -> tuple[Detections, Detections]:
    """One detection at a box: on a canvas of the image's size, and on one of three times that."""
    side = tiny.SPEC.mask_side
    mask = np.random.default_rng(3).random((1, side, side), np.float32)
    boxes, one = np.array([box], np.float32), np.ones(1, np.float32)
    raw = RawDetections(boxes, one, one.astype(np.int32), mask, 0, 0)
    tripled = (3 * image_hw[0], 3 * image_hw[1])
    detections = from_raw(raw, tiny.SPEC, image_hw, image_hw)
    return detections, from_raw(replace(raw, boxes=boxes * 3), tiny.SPEC, image_hw, tripled)


def test_masks_of_odd_boxes(subtests: pytest.Subtests) -> None:
    for (name, box), (image, image_hw) in product(BOXES.items(), IMAGES.items()):
        with subtests.test(name, image=image):
            for detections in _pasted(box, image_hw):
                _check_masks(detections, image_hw)


def _check_masks(detections: Detections, image_hw: tuple[int, int]) -> None:
    """Against a slow paste, the run lengths and torchvision."""
    masks = detections.masks
    assert masks is not None
    assert len(detections) == 1
    assert detections.mask_probs is not None
    soft = paste_integer(detections.mask_probs[0], detections.boxes[0], image_hw)
    sure = np.abs(soft - 0.5) > 1e-5
    np.testing.assert_array_equal(masks[0][sure], soft[sure] > 0.5)
    assert np.array_equal(_decoded(detections), masks[0])
    reference = _torchvision_paste(detections, image_hw)
    if reference is not None:
        np.testing.assert_array_equal(masks[0], reference)


def test_scaled_boxes_are_torchvisions() -> None:
    boxes = torch.tensor(list(BOXES.values()))
    one = np.ones(len(BOXES), np.float32)
    side = tiny.SPEC.mask_side
    masks = np.zeros((len(BOXES), side, side), np.float32)
    raw = RawDetections(boxes.numpy(), one, one.astype(np.int32), masks, 0, 0)
    detections = from_raw(raw, tiny.SPEC, (333, 517), (64, 96))
    expected = resize_boxes(boxes, (64, 96), (333, 517))
    np.testing.assert_array_equal(detections.boxes, expected.numpy())


def _torchvision_paste(
    detections: Detections, image_hw: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """torchvision's own; None where it fails, on boxes outside the image."""
    assert detections.mask_probs is not None
    masks = torch.tensor(detections.mask_probs)[:, None]
    try:
        soft = paste_masks_in_image(masks, torch.tensor(detections.boxes), image_hw)
    except RuntimeError:
        return None
    return (soft[0, 0] > 0.5).numpy()


def _decoded(detections: Detections) -> NDArray[np.bool_]:
    from pycocotools import mask as coco_mask

    (encoded,) = detections.rle()
    return coco_mask.decode(encoded).astype(bool)
