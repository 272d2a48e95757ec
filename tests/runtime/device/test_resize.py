"""The resize on a device, on CPU arrays of two libraries, against the host."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model.spec import PreprocessSpec
from runtime.device import taps
from runtime.device.library import library_of
from runtime.device.resize import Layout, resize
from runtime.device.workspace import Workspace
from runtime.preprocessing.canvas import resize as resize_on_the_host

INTERPOLATIONS = ("bilinear", "pillow-bilinear", "opencv-bilinear", "skimage-bilinear")
SIZES = {
    "up": ((30, 40), (50, 67)),
    "down": ((60, 80), (41, 55)),
    "down-a-lot": ((211, 157), (9, 7)),
    "one-axis": ((24, 32), (24, 50)),
    "both-ways": ((24, 60), (50, 13)),
    "same": ((24, 32), (24, 32)),
    "one-pixel": ((1, 1), (5, 4)),
    "to-one-pixel": ((17, 23), (1, 1)),
    "a-line": ((1, 300), (3, 41)),
}


def frames(hw: tuple[int, int], count: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *hw, 3), np.uint8)


def on(library: str, values: np.ndarray) -> Any:
    return values if library == "numpy" else torch.from_numpy(values)


def resized(library: str, values: np.ndarray, hw: tuple[int, int], spec: PreprocessSpec,
            layout: Layout = "hwc", channel_order: Any = "rgb") -> np.ndarray:  # fmt: skip
    array = on(library, values)
    workspace = Workspace(library_of(array), array)
    result = resize(array, layout, hw, spec, workspace, channel_order)
    return np.asarray(result)


def test_equals_the_host(subtests: pytest.Subtests) -> None:
    for library, interpolation, (source, target) in product(
        ["numpy", "torch"], INTERPOLATIONS, SIZES.values()
    ):
        with subtests.test(
            library=library, interpolation=interpolation, source=source, target=target
        ):
            spec = PreprocessSpec(interpolation=interpolation)
            array = frames(source, 2)
            result = resized(library, array, target, spec)
            assert result.dtype == np.float32
            expected = np.stack([resize_on_the_host(frame, target, spec) for frame in array])
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_every_byte_is_pillows(library: str) -> None:
    rng = np.random.default_rng(1)
    spec = PreprocessSpec(interpolation="pillow-bilinear", value_range=255.0)
    different = 0
    for seed in range(120):
        source, target = rng.integers(1, 150, 2), rng.integers(1, 150, 2)
        photo = frames((int(source[0]), int(source[1])), seed=seed)
        hw = (int(target[0]), int(target[1]))
        image = Image.fromarray(photo[0]).resize(hw[::-1], Image.Resampling.BILINEAR)
        result = resized(library, photo, hw, spec)[0].transpose(1, 2, 0)
        np.testing.assert_array_equal(result, np.asarray(image, np.float32))
        plain = resize_on_the_host(photo[0], hw, PreprocessSpec(value_range=255.0))
        different += not np.array_equal(result, plain.transpose(1, 2, 0))
    assert different > 100  # Pillow's own rounding is needed


def test_pillows_taps_at_the_sizes_of_cameras() -> None:
    """A thin photo shows every column's taps."""
    spec = PreprocessSpec(interpolation="pillow-bilinear", value_range=255.0)
    for source, target in ((1920, 1333), (1080, 800), (3840, 1333), (640, 1067), (4000, 1199)):
        photo = frames((3, source), seed=source)
        image = Image.fromarray(photo[0]).resize((target, 3), Image.Resampling.BILINEAR)
        result = resized("torch", photo, (3, target), spec)[0].transpose(1, 2, 0)
        np.testing.assert_array_equal(result, np.asarray(image, np.float32))


def test_channels_and_layouts(subtests: pytest.Subtests) -> None:
    for library, interpolation, order, input_order, layout in product(
        ["numpy", "torch"], INTERPOLATIONS, ["rgb", "bgr"], ["rgb", "bgr"], ["hwc", "chw"]
    ):
        with subtests.test(
            library=library,
            interpolation=interpolation,
            order=order,
            input_order=input_order,
            layout=layout,
        ):
            spec = PreprocessSpec(
                interpolation=interpolation, channel_order=order, value_range=255.0
            )
            rgb = frames((20, 31), 2)
            array = rgb if input_order == "rgb" else rgb[..., ::-1]
            array = np.ascontiguousarray(array if layout == "hwc" else array.transpose(0, 3, 1, 2))
            result = resized(library, array, (33, 29), spec, layout, input_order)
            expected = np.stack([resize_on_the_host(frame, (33, 29), spec) for frame in rgb])
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_frames_with_gaps(library: str) -> None:
    """A part of a larger frame, and a transposed one."""
    spec = PreprocessSpec()
    large = frames((60, 90))
    for cut in (lambda f: f[:, 3:40, 5:77], lambda f: f[:, ::2], lambda f: f[..., :3]):
        array = on(library, large)
        workspace = Workspace(library_of(array), array)
        result = resize(cut(array), "hwc", (25, 26), spec, workspace)
        expected = resize_on_the_host(cut(large)[0], (25, 26), spec)
        np.testing.assert_array_equal(np.asarray(result)[0], expected)


def test_tables_are_computed_once_per_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    pillow = taps.pillow

    def counting(source: int, target: int) -> taps.Taps:
        calls.append((source, target))
        return pillow(source, target)

    monkeypatch.setitem(resize.__globals__["_TAPS"], "pillow-bilinear", counting)
    spec = PreprocessSpec(interpolation="pillow-bilinear")
    array = frames((20, 30))
    workspace = Workspace(library_of(array), array)
    for _ in range(3):
        resize(array, "hwc", (11, 17), spec, workspace)
    assert sorted(calls) == [(20, 11), (30, 17)]
    resize(array, "hwc", (11, 18), spec, workspace)
    assert sorted(calls) == [(20, 11), (30, 17), (30, 18)]


def test_a_table_that_is_off_by_one_pixel_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow = taps.pillow

    def shifted(source: int, target: int) -> taps.Taps:
        good = pillow(source, target)
        return taps.Taps(np.minimum(good.index + 1, source - 1), good.weight)

    monkeypatch.setitem(resize.__globals__["_TAPS"], "pillow-bilinear", shifted)
    spec = PreprocessSpec(interpolation="pillow-bilinear")
    result = resized("numpy", frames((20, 30)), (11, 17), spec)[0]
    assert (result != resize_on_the_host(frames((20, 30))[0], (11, 17), spec)).mean() > 0.5
