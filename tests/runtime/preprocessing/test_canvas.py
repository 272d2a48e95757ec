"""The canvas against what torchvision and detectron2 make of the same photo."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from torchvision.models.detection.transform import GeneralizedRCNNTransform, _resize_image_and_masks

from model.errors import ImageError
from model.spec import PreprocessSpec
from runtime.preprocessing.canvas import resize, resized_hw, to_canvas
from runtime.sources.photos import decode

SMALL = PreprocessSpec(short_side=96, long_side=160)
DETECTRON2 = PreprocessSpec(
    interpolation="pillow-bilinear",
    resize_rule="detectron2",
    channel_order="bgr",
    value_range=255.0,
    size_divisor=1,
)
# On the scale 0..255: some eight roundings of half a unit (2**-25 of it) on either side. Where
# torch's kernels have no fused multiply-add, their sample positions are rounded once more.
TOLERANCE = 0.02 if torch.backends.cpu.get_cpu_capability() == "DEFAULT" else 2e-4


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def torchvision_canvas(
    photos: list[NDArray[np.uint8]], spec: PreprocessSpec
) -> NDArray[np.float32]:
    """float32 [N, 3, H, W], the normalized and padded batch."""
    transform = GeneralizedRCNNTransform(
        spec.short_side, spec.long_side, list(spec.mean), list(spec.std)
    )
    images, _ = transform([tensor(p) for p in photos])
    return images.tensors.numpy()


def normalized(photos: list[NDArray[np.uint8]], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Our canvas after what the graph does first: normalise, and zero what is outside."""
    canvas = to_canvas(photos, spec)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (spec.mean, spec.std))
    images = (canvas.images - mean) / std
    for image, (height, width) in zip(images, canvas.image_hw.astype(int), strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return images


def test_canvas_equals_torchvisions(subtests: pytest.Subtests) -> None:
    for case, hw in [
        ("as-it-is", (96, 128)),
        ("twice-as-large", (48, 64)),
        ("half", (192, 256)),
        ("odd-down", (97, 129)),
        ("odd-up", (61, 83)),
        ("tall", (83, 61)),
        ("square", (101, 101)),
        ("long-side-limits", (90, 301)),
        ("tall-long-side-limits", (299, 77)),
        ("five-times-down", (480, 640)),
        ("tiny", (2, 3)),
        ("one-pixel", (1, 1)),
        ("one-pixel-wide", (100, 1)),
    ]:
        with subtests.test(case):
            pixels = [photo(*hw)]
            ours, theirs = normalized(pixels, SMALL), torchvision_canvas(pixels, SMALL)
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE / 255 / min(SMALL.std))


def test_mixed_batch_equals_torchvisions() -> None:
    pixels = [photo(61, 83, 1), photo(200, 90, 2), photo(90, 150, 3)]
    ours, theirs = normalized(pixels, SMALL), torchvision_canvas(pixels, SMALL)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE / 255 / min(SMALL.std))


@pytest.mark.parametrize("sides", [(320, 533), (800, 1333)], ids=str)
def test_sizes_equal_torchvisions(sides: tuple[int, int]) -> None:
    spec = PreprocessSpec(*sides)
    rng = np.random.default_rng(3)
    for _ in range(200):
        height, width = (int(side) for side in np.exp(rng.uniform(4.5, 8.5, 2)))
        # A tensor without data has the sizes all the same.
        empty = torch.empty(3, height, width, device="meta")
        expected = tuple(_resize_image_and_masks(empty, *sides)[0].shape[1:])
        assert resized_hw((height, width), spec) == expected, (height, width)


def test_bilinear_equals_torchs() -> None:
    rng = np.random.default_rng(4)
    worst = 0.0
    for seed in range(60):
        (height, width), target = (
            rng.integers(1, 90, 2),
            tuple(int(t) for t in rng.integers(1, 90, 2)),
        )
        pixels = photo(int(height), int(width), seed)
        floats = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        expected = interpolate(floats, target, mode="bilinear", align_corners=False)[0]
        ours = resize(pixels, target, PreprocessSpec(value_range=255.0))
        assert ours.dtype == np.float32
        worst = max(worst, float(np.abs(ours - expected.numpy()).max()))
    assert worst <= TOLERANCE


def test_sizes_and_channels_of_one_photo() -> None:
    # 800 / 427 * 640 = 1199.06 and 800 / 480 * 640 = 1066.67.
    assert resized_hw((427, 640), PreprocessSpec()) == (800, 1199)
    assert resized_hw((480, 640), PreprocessSpec()) == (800, 1066)
    canvas = to_canvas([photo(480, 640)], DETECTRON2)
    assert canvas.images.shape == (1, 3, 800, 1067)
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, :] = (255, 51, 0)
    rgb = resize(pixels, (4, 4), PreprocessSpec())
    np.testing.assert_allclose(rgb[:, 0, 0], (1.0, 0.2, 0.0), rtol=1e-6)
    assert resize(pixels, (4, 4), DETECTRON2)[:, 0, 0].tolist() == [0.0, 51.0, 255.0]


def test_rounded_sizes_are_detectron2s(subtests: pytest.Subtests) -> None:
    for case, hw, expected in [
        ("up", (480, 640), (800, 1067)),
        ("tall", (640, 480), (1067, 800)),
        ("square", (500, 500), (800, 800)),
        ("long-side-limits", (400, 1000), (533, 1333)),
        # Exact halves, where only detectron2's order of float operations tells up from down:
        # 1333 / (800 / 302 * 604) * 800 is 666.4999… in float64, at 306 x 612 it is 666.5.
        ("half-goes-down", (302, 604), (666, 1333)),
        ("half-goes-up", (306, 612), (667, 1333)),
    ]:
        with subtests.test(case):
            assert resized_hw(hw, DETECTRON2) == expected


@pytest.mark.data
def test_resize_is_detectron2s_to_the_bit(data_folder: Path, subtests: pytest.Subtests) -> None:
    for case in [
        "a_mask_rcnn_R_50_FPN",
        "c_mask_rcnn_X_101_32x8d_FPN",
        "d_mask_rcnn_R_50_C4",
        "f_keypoint_rcnn_R_50_FPN",
        "g_faster_rcnn_R_50_FPN",
    ]:
        with subtests.test(case=case):
            golden = data_folder / "golden" / "detectron2"
            spec = _detectron2_spec((golden / case / "config.yaml").read_text("utf-8"))
            images = json.loads((golden / case / "golden.json").read_text("utf-8"))["images"]
            assert len(images) == 4
            for image in images:
                pixels = decode(golden / "images" / image["file_name"])
                planes = resize(pixels, resized_hw(pixels.shape[:2], spec), spec)
                levels = planes.astype(np.uint8)
                assert (levels == planes).all()
                assert list(levels.shape) == image["input_shape"]
                digest = hashlib.sha256(np.ascontiguousarray(levels).tobytes()).hexdigest()
                assert digest == image["resized_input_sha256_uint8_chw"]


def _detectron2_spec(config: str) -> PreprocessSpec:
    def value(key: str) -> str:
        result = re.search(rf"^  {key}: (\S+)$", config, re.MULTILINE)
        assert result, key
        return result[1]

    order = value("FORMAT").lower()
    assert order in ("bgr", "rgb")
    return PreprocessSpec(
        short_side=int(value("MIN_SIZE_TEST")),
        long_side=int(value("MAX_SIZE_TEST")),
        interpolation="pillow-bilinear",
        resize_rule="detectron2",
        channel_order="bgr" if order == "bgr" else "rgb",
        value_range=255.0,
        size_divisor=1,
    )


def test_slivers_are_refused(subtests: pytest.Subtests) -> None:
    for hw, says in [
        ((20000, 1), "1333x0"),
        ((1, 20000), "0x1333"),
        ((0, 10), "0x10"),
        ((10, 0), "10x0"),
    ]:
        with subtests.test(says):
            with pytest.raises(ImageError, match=says) as caught:
                resized_hw(hw, PreprocessSpec())
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["torchvision", "detectron2", "mmdetection", "matterport"])
def test_fixed_canvas_is_never_exceeded(rule: str) -> None:
    spec = PreprocessSpec(320, 533, resize_rule=rule)  # type: ignore[arg-type]
    rng = np.random.default_rng(5)
    for _ in range(500):
        hw = (int(rng.integers(150, 600)), int(rng.integers(150, 600)))
        height, width = resized_hw(hw, spec, (320, 448))
        assert 1 <= height <= 320
        assert 1 <= width <= 448
        # As large as the rule and the canvas allow, and in proportion.
        assert (height, width) == resized_hw(hw, spec) or height >= 319 or width >= 447
        assert abs(height / hw[0] - width / hw[1]) <= 1 / min(hw)


def test_fixed_canvas_and_batch() -> None:
    pixels = photo(48, 64)
    canvas = to_canvas([pixels], SMALL, (128, 160), batch=3)
    assert canvas.images.shape == (3, 3, 128, 160)
    assert canvas.images.dtype == canvas.image_hw.dtype == np.float32
    assert canvas.image_hw.tolist() == [[96, 128], [128, 160], [128, 160]]
    np.testing.assert_array_equal(canvas.images[0, :, :96, :128], resize(pixels, (96, 128), SMALL))
    assert not canvas.images[0, :, 96:].any()
    assert not canvas.images[0, :, :, 128:].any()
    assert not canvas.images[1:].any()
