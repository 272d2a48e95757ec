from __future__ import annotations

import numpy as np
import pytest

from model.spec import PreprocessSpec
from runtime.preprocessing.canvas import resize, resized_hw, to_canvas
from runtime.preprocessing.opencv_bilinear import resize_uint8
from tests.oracles import mmdetection as oracle

MMDETECTION = PreprocessSpec(
    resize_rule="mmdetection", interpolation="opencv-bilinear", value_range=255.0
)
SIZES = [
    pytest.param((7, 5), (23, 31), id="up"),
    pytest.param((40, 31), (9, 12), id="down"),
    pytest.param((20, 24), (10, 12), id="half"),
    pytest.param((9, 8), (9, 8), id="same"),
    pytest.param((11, 6), (11, 13), id="one-axis"),
    pytest.param((1, 1), (5, 4), id="one-pixel"),
    pytest.param((1, 9), (3, 2), id="one-row"),
    pytest.param((33, 17), (1, 1), id="to-one-pixel"),
]


def _photo(hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_every_byte_is_the_oracles(source: tuple[int, int], target: tuple[int, int]) -> None:
    photo = _photo(source)
    np.testing.assert_array_equal(resize_uint8(photo, target), oracle.resize(photo, *target))


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_plain_color_stays(value: int) -> None:
    photo = np.full((13, 9, 3), value, np.uint8)
    assert (resize_uint8(photo, (31, 40)) == value).all()


def test_own_sizes_and_the_float_result() -> None:
    photo = _photo((30, 40))
    np.testing.assert_array_equal(resize_uint8(photo, (30, 40)), photo)
    # Or nothing of this would be needed.
    photo = _photo((60, 80))
    exact = resize(photo, (100, 133), PreprocessSpec(value_range=255.0))
    result = resize(photo, (100, 133), MMDETECTION)
    assert np.abs(result - exact).max() > 0.5
    assert np.abs(result - exact).max() < 1.5
    assert (result == np.round(result)).all()


def test_every_byte_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not needed for anything else")
    rng = np.random.default_rng(1)
    for seed in range(60):
        source, target = rng.integers(1, 80, 2), rng.integers(1, 120, 2)
        photo = _photo((int(source[0]), int(source[1])), seed)
        expected = cv2.resize(
            photo, (int(target[1]), int(target[0])), interpolation=cv2.INTER_LINEAR
        )
        np.testing.assert_array_equal(
            resize_uint8(photo, (int(target[0]), int(target[1]))), expected.reshape(*target, 3)
        )


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_channels(order: str) -> None:
    spec = PreprocessSpec(
        channel_order=order,  # type: ignore[arg-type]
        resize_rule="mmdetection",
        interpolation="opencv-bilinear",
        value_range=255.0,
    )
    photo = np.zeros((4, 4, 3), np.uint8)
    photo[:, :] = (255, 51, 1)
    expected = [255.0, 51.0, 1.0] if order == "rgb" else [1.0, 51.0, 255.0]
    assert resize(photo, (5, 6), spec)[:, 2, 2].tolist() == expected


def test_sides() -> None:
    rng = np.random.default_rng(4)
    for _ in range(3000):
        height, width = (int(v) for v in rng.integers(20, 5000, 2))
        assert resized_hw((height, width), MMDETECTION) == oracle.resized_hw(
            height, width, 800, 1333
        )
    assert resized_hw((480, 640), MMDETECTION) == (800, 1067)
    assert resized_hw((427, 640), MMDETECTION) == (800, 1199)


def test_the_canvas_is_a_multiple_of_32() -> None:
    spec = PreprocessSpec(
        100, 160, resize_rule="mmdetection", interpolation="opencv-bilinear", value_range=255.0
    )
    photo = _photo((48, 64))
    canvas = to_canvas([photo], spec)
    assert canvas.images.shape == (1, 3, 128, 160)
    assert canvas.image_hw.tolist() == [[100, 133]]
    expected = oracle.resize(photo, 100, 133).transpose(2, 0, 1)
    np.testing.assert_array_equal(canvas.images[0, :, :100, :133], expected)
    assert not canvas.images[0, :, 100:].any()
