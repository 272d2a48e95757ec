"""JPEGs decoded at a fraction of their size: results stay in pixels of the whole photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runtime.predictor import Predictor
from tests.runtime.networks import MeanSession

UInt8 = NDArray[np.uint8]


def jpeg(path: Path, width: int, height: int, orientation: int = 1) -> Path:
    """A gray ramp with an EXIF orientation."""
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    image = Image.fromarray(np.tile(ramp, (height, 1))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, quality=95, exif=exif)
    return path


# The canvas of `networks.spec` is 32 pixels on the short side, 64 at most on the long one.
@pytest.mark.parametrize(
    ("size_wh", "orientation", "decoded_hw"),
    [
        pytest.param((640, 480), 1, (60, 80), id="an eighth"),
        pytest.param((640, 480), 6, (80, 60), id="an eighth, rotated"),
        pytest.param((171, 129), 1, (33, 43), id="a quarter, rounded up"),
        pytest.param((100, 70), 1, (35, 50), id="half"),
        pytest.param((80, 60), 1, (60, 80), id="half would be too small"),
        pytest.param((4000, 70), 1, (9, 500), id="an eighth of a panorama"),
    ],
)
def test_boxes_are_in_the_whole_photos_pixels(
    tmp_path: Path, size_wh: tuple[int, int], orientation: int, decoded_hw: tuple[int, int]
) -> None:
    path = jpeg(tmp_path / "ramp.jpg", *size_wh, orientation)
    with Predictor(MeanSession(), scaled_decode=True) as fast, Predictor(MeanSession()) as exact:
        (result,) = fast.stream([path], keep_pixels=True)
        expected = exact.predict(path)
    assert result.pixels.shape == (*decoded_hw, 3)
    detections = result.detections
    assert (
        detections.image_hw == expected.image_hw == (size_wh[::-1] if orientation == 1 else size_wh)
    )
    np.testing.assert_array_equal(detections.boxes, expected.boxes)
    assert detections.scores[0] == pytest.approx(expected.scores[0], abs=0.01)


def test_other_photos_are_decoded_exactly(tmp_path: Path) -> None:
    small = jpeg(tmp_path / "small.jpg", 60, 40)
    large = tmp_path / "large.png"
    with Image.open(jpeg(tmp_path / "large.jpg", 640, 480)) as image:
        image.save(large)
        opened = image.copy()
    with Predictor(MeanSession(), scaled_decode=True) as fast, Predictor(MeanSession()) as exact:
        for photo in (small, large, opened, np.asarray(opened)):
            ours, theirs = fast.predict(photo), exact.predict(photo)
            np.testing.assert_array_equal(ours.scores, theirs.scores)
            np.testing.assert_array_equal(ours.boxes, theirs.boxes)


def test_results_of_the_demo_differ_a_little(
    demo_onnx: Path, demo_pixels: UInt8, tmp_path: Path
) -> None:
    path = tmp_path / "large.jpg"
    Image.fromarray(demo_pixels).resize((2560, 1920), Image.Resampling.BICUBIC).save(path)
    with Predictor.open(demo_onnx, threads=1, scaled_decode=True) as fast:
        detections = fast.predict(path, score_threshold=0.6)
        pixels = next(iter(fast.stream([path], keep_pixels=True))).pixels
    with Predictor.open(demo_onnx, threads=1) as exact:
        expected = exact.predict(path, score_threshold=0.6)
    assert pixels.shape == (480, 640, 3)
    assert len(expected) >= 5
    assert detections.image_hw == expected.image_hw == (1920, 2560)
    assert abs(len(detections) - len(expected)) <= 1
    nearest = np.abs(detections.boxes[:, None] - expected.boxes[None]).max(axis=2).min(axis=1)
    assert np.median(nearest) < 8  # of 2,560 pixels
    assert np.median(nearest) > 0
