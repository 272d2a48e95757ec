"""Who learns from layers' inputs: what they are shown, how much of it, and what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from calib.calibration import layer_inputs
from calib.calibration.layer_inputs import show_inputs
from calib.calibration.photos import Skipped
from calib.graph.layers import Layer, weighted_layers
from calib.options import QuantizeOptions
from calib.quantize import photo_runs
from calib.quantizer import prepare
from export.onnx_file import read_onnx
from model.errors import UsageError


class Seen:
    """A reader that keeps what it is shown."""

    def __init__(self) -> None:
        self.inputs: list[npt.NDArray[np.float32]] = []

    def observe(self, data: npt.NDArray[np.float32]) -> None:
        self.inputs.append(data)


def _show(
    file: Path, readers: list[tuple[Layer, Seen]], model: ir.Model, photos: list[Path]
) -> tuple[Skipped, list[int]]:
    skipped, counted = Skipped(), list[int]()
    artifact = read_onnx(file).artifact
    show_inputs(readers, model, artifact, photos, skipped, counted.append, threads=1)
    return skipped, counted


def test_each_reader_sees_its_own_layer_on_the_first_photos(
    demo_onnx: Path, scenes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_inputs, "PHOTOS", 2)
    model = ir.load(demo_onnx)
    layers = weighted_layers(model.graph)
    levels = [one for one in layers if one.role == "rpn" and not one.is_predictor]
    (stem, *_), shared = layers, Seen()
    first, second, of_stem = Seen(), Seen(), Seen()
    assert levels[0].weight is levels[1].weight
    readers = [(levels[0], first), (levels[1], second), (stem, of_stem)]
    readers += [(levels[0], shared), (levels[1], shared)]
    skipped, counted = _show(demo_onnx, readers, model, scenes)
    assert (sum(counted), skipped.reasons) == (2, [])
    assert [len(one.inputs) for one in (first, second, of_stem, shared)] == [2, 2, 2, 4]
    assert of_stem.inputs[0].shape[1] == 3
    heights = [one.inputs[0].shape[2] for one in (first, second)]
    assert heights[0] == 2 * heights[1]
    assert sorted(data.shape[2] for data in shared.inputs) == sorted(2 * heights)


def test_photos_that_went_away_are_named_and_counted(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path
) -> None:
    model, reader, gone = ir.load(demo_onnx), Seen(), tmp_path / "gone.png"
    readers = [(weighted_layers(model.graph)[0], reader)]
    skipped, counted = _show(demo_onnx, readers, model, [gone, *scenes[:2]])
    assert len(reader.inputs) == 2
    assert sum(counted) == 3
    assert skipped.photos == [gone]
    with pytest.raises(UsageError, match=r"0 usable photos, 1 skipped \(.*gone\.png"):
        _show(demo_onnx, readers, model, [gone])


def test_work_that_no_photo_shows_is_refused(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    options = QuantizeOptions(rounding="nearest", threads=1)
    job = prepare(read_onnx(demo_onnx), demo_onnx, standard_table, scenes, options, lambda _: None)
    _, placement = job.quantised(job.default_choice)
    job.used[:] = [tmp_path / "gone.png"]
    with pytest.raises(UsageError, match=r"0 usable photos, 1 skipped"):
        job.share(placement)


@pytest.mark.parametrize("learns", [True, False])
def test_progress_ends_where_it_was_said_to(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    learns: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(layer_inputs, "PHOTOS", 5)
    monkeypatch.setattr("calib.quantizer.PHOTOS", 5)
    copy, broken = tmp_path / "copy.png", tmp_path / "broken.png"
    copy.write_bytes(scenes[0].read_bytes())
    broken.write_bytes(b"no photo")
    photos = [scenes[0], copy, broken, *scenes[1:4]]
    rounding = "learned" if learns else "nearest"
    options = QuantizeOptions(rounding=rounding, preset="fast", writer="tensorrt", threads=1)
    counted: list[int] = []
    table = tmp_path / "a.table.json"
    prepare(read_onnx(demo_onnx), demo_onnx, table, photos, options, counted.append)
    assert sum(counted) == photo_runs(len(photos), options)
