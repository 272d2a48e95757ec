"""Quantised files of the demo model, made once each."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from calib.options import QuantizeOptions
from calib.quantize import quantize
from examples.shapes import make_scene


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six pictures of shapes to calibrate on, 240 high and 320 wide."""
    folder = tmp_path_factory.mktemp("scenes")
    paths = [folder / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        Image.fromarray(make_scene((7, number), (240, 320), 6).image_rgb).save(path)
    return paths


@pytest.fixture(scope="session")
def standard_table(
    demo_onnx: Path, scenes: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The calibration table of the demo's `standard` file."""
    folder = tmp_path_factory.mktemp("table")
    options = QuantizeOptions(rounding="nearest", table=folder / "t.json")
    quantize(demo_onnx, scenes, folder / "first.onnx", options)
    return folder / "t.json"


@pytest.fixture(scope="session")
def native_table(
    demo_rtx_onnx: Path, scenes: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The calibration table of the demo's `native` file."""
    folder = tmp_path_factory.mktemp("table")
    options = QuantizeOptions(rounding="nearest", table=folder / "t.json")
    quantize(demo_rtx_onnx, scenes, folder / "first.onnx", options)
    return folder / "t.json"
