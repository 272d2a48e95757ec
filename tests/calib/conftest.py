"""Calibration tables of the demo model, made once each."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from calib.options import QuantizeOptions
from calib.quantize import quantize
from examples.shapes import make_scene
from tests.conftest import made_once


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six pictures of shapes to calibrate on, 240 high and 320 wide."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for number in range(6):
            scene = make_scene((7, number), (240, 320), 6)
            Image.fromarray(scene.image_rgb).save(folder / f"{number}.png")

    return sorted(made_once(tmp_path_factory, "scenes", make).glob("*.png"))


def _table(source: Path, scenes: list[Path], factory: pytest.TempPathFactory, name: str) -> Path:
    def make(path: Path) -> None:
        options = QuantizeOptions(rounding="nearest", table=path)
        quantize(source, scenes, factory.mktemp("table") / "first.onnx", options)

    return made_once(factory, f"{name}.table.json", make)


@pytest.fixture(scope="session")
def standard_table(
    demo_onnx: Path, scenes: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The calibration table of the demo's `standard` file; do not change it."""
    return _table(demo_onnx, scenes, tmp_path_factory, "standard")


@pytest.fixture(scope="session")
def native_table(
    demo_rtx_onnx: Path, scenes: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The calibration table of the demo's `native` file; do not change it."""
    return _table(demo_rtx_onnx, scenes, tmp_path_factory, "native")
