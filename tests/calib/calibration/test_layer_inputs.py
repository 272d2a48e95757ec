"""Inputs of layers: which reader gets which, on how many photos, and the progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from calib.calibration.photos import Photo
from calib.calibration.run import feed_inputs
from calib.context import RunContext
from calib.graph.layers import Layer, weighted_layers
from calib.options import QuantizeOptions
from calib.quantizer import photo_runs, prepare
from export.onnx_file import read_onnx
from model.errors import UsageError


class Recorder:
    """A reader that keeps its inputs."""

    def __init__(self) -> None:
        self.inputs: list[npt.NDArray[np.float32]] = []

    def observe(self, data: npt.NDArray[np.float32]) -> None:
        self.inputs.append(data)


def _feed(
    file: Path, readers: list[tuple[Layer, Recorder]], model: ir.Model, photos: list[Path]
) -> tuple[dict[Path, str], list[int]]:
    context = RunContext.of(read_onnx(file), QuantizeOptions(threads=1))
    counted: list[int] = []
    context.advance = counted.append
    feed_inputs(readers, model, list(map(Photo.of, photos)), context)
    return context.skipped, counted


def test_each_reader_gets_the_input_of_its_layer_on_the_first_photos(
    demo_onnx: Path, scenes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calib.calibration.run.PHOTOS", 2)
    model = ir.load(demo_onnx)
    layers = weighted_layers(model.graph)
    levels = [one for one in layers if one.role == "rpn" and not one.is_predictor]
    (stem, *_), shared = layers, Recorder()
    first, second, of_stem = Recorder(), Recorder(), Recorder()
    assert levels[0].weight is levels[1].weight
    readers = [(levels[0], first), (levels[1], second), (stem, of_stem)]
    readers += [(levels[0], shared), (levels[1], shared)]
    skipped, counted = _feed(demo_onnx, readers, model, scenes)
    assert (sum(counted), skipped) == (2, {})
    assert [len(one.inputs) for one in (first, second, of_stem, shared)] == [2, 2, 2, 4]
    assert of_stem.inputs[0].shape[1] == 3
    heights = [one.inputs[0].shape[2] for one in (first, second)]
    assert heights[0] == 2 * heights[1]
    assert sorted(data.shape[2] for data in shared.inputs) == sorted(2 * heights)


def test_photos_that_disappear_are_named_and_counted(
    tiny_onnx: Path, scenes: list[Path], tmp_path: Path
) -> None:
    model, reader, gone = ir.load(tiny_onnx), Recorder(), tmp_path / "gone.png"
    readers = [(weighted_layers(model.graph)[0], reader)]
    skipped, counted = _feed(tiny_onnx, readers, model, [gone, *scenes[:2]])
    assert len(reader.inputs) == 2
    assert sum(counted) == 3
    assert list(skipped) == [gone]
    with pytest.raises(UsageError, match=r"0 usable photos, 1 skipped \(.*gone\.png"):
        _feed(tiny_onnx, readers, model, [gone])


def test_multiply_adds_need_a_photo(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    options = QuantizeOptions(rounding="nearest", threads=1)
    quantizer = prepare(read_onnx(demo_onnx), scenes, standard_table, options)
    quantizer.photos[:] = [Photo(tmp_path / "gone.png", "")]
    with pytest.raises(UsageError, match=r"0 usable photos, 1 skipped"):
        quantizer.work_fraction(quantizer.preset_nodes)


@pytest.mark.parametrize("rounding", ["gptq", "nearest"])
def test_progress_adds_up_to_its_total(
    tiny_onnx: Path, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    rounding: Literal["gptq", "nearest"],
) -> None:  # fmt: skip
    monkeypatch.setattr("calib.calibration.run.PHOTOS", 5)
    monkeypatch.setattr("calib.quantizer.PHOTOS", 5)
    copy, broken = tmp_path / "copy.png", tmp_path / "broken.png"
    copy.write_bytes(scenes[0].read_bytes())
    broken.write_bytes(b"no photo")
    photos = [scenes[0], copy, broken, *scenes[1:4]]
    options = QuantizeOptions(rounding=rounding, preset="fast", writer="tensorrt", threads=1)
    counted: list[int] = []
    table = tmp_path / "a.table.json"
    totals: list[int] = []

    def progress(total: int, title: str) -> Callable[[int], None]:
        totals.append(total)
        return counted.append

    prepare(read_onnx(tiny_onnx), photos, table, options, progress)
    assert [sum(counted)] == totals == [photo_runs(len(photos), options)]
