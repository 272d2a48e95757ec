"""`maskport quantize` end to end on the demo model, and what it refuses."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from PIL import Image

from calib.calibration import run
from calib.graph.layers import weighted_layers
from calib.graph.presets import Preset
from calib.options import QuantizeOptions
from calib.quantize import main, quantize
from calib.writers.registry import tensors_to_observe
from export.engine import build_engine
from export.onnx_file import remove_checksum
from model.errors import ArtifactError
from runtime.predictor import Predictor
from tests.calib.rules import read

NEAREST = QuantizeOptions(rounding="nearest")
ErrorOf = Callable[[list[str]], str]


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> ErrorOf:
    """Runs the command, expects it to fail, and returns its one line."""

    def of(argv: list[str]) -> str:
        status = main(argv)
        assert status in (1, 2)
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        return f"{status} {errors[-1]}"

    return of


@pytest.mark.parametrize(
    ("writer", "preset", "most_bytes", "least_fraction"),
    [
        ("onnxruntime", "fast", 0.32, 0.8),
        pytest.param("tensorrt", "accurate", 0.9, 0.3, marks=pytest.mark.slow),
        pytest.param("tensorrt", "fast", 0.32, 0.8, marks=pytest.mark.slow),
        pytest.param("onnxruntime", "accurate", 0.9, 0.3, marks=pytest.mark.slow),
    ],
)
def test_both_writers_detect_what_the_float_file_detects(
    writer: Literal["onnxruntime", "tensorrt"], preset: Preset, most_bytes: float,
    least_fraction: float, demo_onnx: Path, standard_table: Path, scenes: list[Path],
    tmp_path: Path, demo_photo: Path,
) -> None:  # fmt: skip
    with Predictor.open(demo_onnx) as predictor:
        truth = predictor.predict(demo_photo, score_threshold=0.7)
    assert len(truth) > 10
    options = QuantizeOptions(writer=writer, preset=preset, table=standard_table)
    report = quantize(demo_onnx, scenes, tmp_path / "q.onnx", options)
    assert report.calibration is not None
    assert (report.calibration.used, report.calibration.resumed) == (0, len(scenes))
    assert report.size_bytes < most_bytes * report.from_bytes
    assert report.fraction is not None
    assert report.fraction > least_fraction
    with Predictor.open(report.path) as predictor:
        result = predictor.predict(demo_photo, score_threshold=0.5)
        assert predictor.artifact.manifest.precision == "int8"
    near = [np.abs(result.boxes - box).max(axis=1).min() for box in truth.boxes]
    assert np.mean(np.asarray(near) < 6.0) > 0.9


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(QuantizeOptions(), id="int8"),
        pytest.param(QuantizeOptions(float_type="fp16"), id="int8+fp16", marks=pytest.mark.slow),
        pytest.param(QuantizeOptions(format="fp8"), id="fp8", marks=pytest.mark.slow),
    ],
)
def test_the_native_file_compiles(
    options: QuantizeOptions,
    demo_rtx_onnx: Path,
    native_table: Path,
    scenes: list[Path],
    tmp_path: Path,
) -> None:
    from dataclasses import replace

    path = tmp_path / "q.onnx"
    quantize(demo_rtx_onnx, scenes, path, replace(options, table=native_table, rounding="nearest"))
    built = build_engine(path, gpu=["sm89"])
    assert built[0].path.stat().st_size > 100_000


def test_an_interrupted_calibration_is_resumed(
    tiny_onnx: Path, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, output, batches = scenes[:4], tmp_path / "q.onnx", 0
    observe = run._observe
    monkeypatch.setattr(run, "_SAVE_EVERY", 0.0)

    def interrupted(*arguments: object) -> None:
        nonlocal batches
        if batches == 3:
            raise KeyboardInterrupt
        batches += 1
        observe(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "_observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize(tiny_onnx, photos, output, NEAREST)
    assert not output.exists()
    monkeypatch.setattr(run, "_observe", observe)
    resumed = quantize(tiny_onnx, photos, output, NEAREST)
    assert resumed.calibration is not None
    assert (resumed.calibration.used, resumed.calibration.resumed) == (1, 3)
    whole = quantize(tiny_onnx, photos, tmp_path / "whole.onnx", NEAREST)
    assert whole.path.read_bytes() == output.read_bytes()


def test_photos_that_cannot_be_used_are_named_and_counted(
    tiny_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for scene in scenes:
        shutil.copy(scene, folder)
    Image.new("RGB", (64, 48)).save(folder / "black.png")
    (folder / "cut.png").write_bytes(scenes[0].read_bytes()[:200])
    output = tmp_path / "q.onnx"
    assert main([str(tiny_onnx), str(folder), "-o", str(output), "--rounding", "nearest"]) == 0
    streams = capsys.readouterr()
    assert "black.png: all black" in streams.err
    assert "cut.png" in streams.err
    assert f"{len(scenes)} photos" in streams.out
    assert "2 skipped" in streams.out
    assert "warning: 6 usable photos" in streams.err
    assert streams.out.splitlines()[-1].startswith("next: ")


def test_too_few_photos(
    tiny_onnx: Path, scenes: list[Path], tmp_path: Path, error_of: ErrorOf
) -> None:
    output = tmp_path / "q.onnx"
    two = [str(path) for path in scenes[:2]]
    assert "expected at least 4" in error_of([str(tiny_onnx), *two, "-o", str(output)])
    assert not output.exists()
    assert error_of([str(tiny_onnx), "-o", str(output)]).startswith("2 error: expected photos")
    assert "no photos found" in error_of([str(tiny_onnx), str(tmp_path), "-o", str(output)])


def test_a_quantized_file_is_refused(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path, error_of: ErrorOf
) -> None:
    options = QuantizeOptions(rounding="nearest", table=standard_table)
    once = quantize(demo_onnx, scenes, tmp_path / "once.onnx", options).path
    line = error_of([str(once), str(scenes[0].parent), "-o", str(tmp_path / "twice.onnx")])
    assert "already quantized" in line
    assert "overwrite" in error_of([str(once), str(scenes[0].parent), "-o", str(once)])


def test_a_graph_that_maskport_did_not_write_is_refused(
    scenes: list[Path], tmp_path: Path, error_of: ErrorOf
) -> None:
    relu = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(n, 1, ["n"]) for n in ("x", "y")]
    graph = onnx.helper.make_graph([relu], "relu", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "relu.onnx")
    line = error_of([str(tmp_path / "relu.onnx"), str(scenes[0].parent)])
    assert line.startswith("1 error:")
    assert "maskport" in line


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_sha256", "0" * 64, "another model"),
        ("method", "entropy", "another method"),
        ("preprocess", "{}", "another preprocessing"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    field: str, value: str, message: str, demo_onnx: Path, standard_table: Path, scenes: list[Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    document = json.loads(standard_table.read_text())
    document["key"][field] = value
    table = tmp_path / "t.json"
    table.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=message):
        quantize(demo_onnx, scenes, tmp_path / "q.onnx", QuantizeOptions(table=table))
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("damage", ["not json", "[]", '{"key": 3}', "cut", "counts"])
def test_a_damaged_table_is_one_line(
    damage: str, demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    text = standard_table.read_text()
    if damage == "counts":
        document = json.loads(text)
        name = next(iter(document["tensors"]))
        document["tensors"][name]["counts"] = "!!!"
        damage = json.dumps(document)
    elif damage == "cut":
        damage = text[: len(text) // 2]
    (tmp_path / "t.json").write_text(damage)
    with pytest.raises(ArtifactError, match=r"t\.json"):
        quantize(demo_onnx, scenes, tmp_path / "q.onnx", QuantizeOptions(table=tmp_path / "t.json"))


def test_an_activation_that_is_not_finite_is_named(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path
) -> None:
    model = remove_checksum(onnx.load(demo_onnx))
    layer = next(n for n in model.graph.node if n.op_type == "Conv")
    weight = next(t for t in model.graph.initializer if t.name == layer.input[1])
    values = numpy_helper.to_array(weight) * np.float32(1e38)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "overflow.onnx")
    with pytest.raises(ArtifactError, match=r"tensor '.+' has NaN or Inf on .*0\.png"):
        quantize(tmp_path / "overflow.onnx", scenes, tmp_path / "q.onnx", NEAREST)


def test_a_tensorrt_cache_gives_the_ranges(
    demo_rtx_onnx: Path, tmp_path: Path, error_of: ErrorOf
) -> None:
    graph = ir.load(demo_rtx_onnx).graph
    hidden = [layer for layer in weighted_layers(graph) if not layer.is_predictor]
    names = tensors_to_observe(graph, hidden)
    lines = [f"{name}: {struct.pack('>f', 0.03125).hex()}" for name in names]
    cache = tmp_path / "calibration.cache"
    cache.write_text("\n".join(["TRT-8601-EntropyCalibration2", *lines]) + "\n")
    options = QuantizeOptions(import_cache=cache)
    report = quantize(demo_rtx_onnx, [], tmp_path / "q.onnx", options)
    written = read(report.path)
    scales = {written.constants[node.input[1]].item() for node in written.nodes("QuantizeLinear")}
    assert scales == {0.03125}
    cache.write_text("\n".join(["TRT-8601-EntropyCalibration2", *lines[:1]]))
    line = error_of(
        [str(demo_rtx_onnx), "--import-cache", str(cache), "-o", str(tmp_path / "r.onnx")]
    )
    assert "tensors have no range" in line
    cache.write_text("TRT-8601-EntropyCalibration2\nx: zz\n")
    line = error_of([str(demo_rtx_onnx), "--import-cache", str(cache)])
    assert "line 2" in line


def test_impossible_options_are_refused(
    demo_onnx: Path, scenes: list[Path], error_of: ErrorOf
) -> None:
    photos = str(scenes[0].parent)
    assert "--qdq" in error_of([str(demo_onnx), photos, "--qdq", "openvino"])
    assert "--method" in error_of([str(demo_onnx), photos, "--method", "kl"])
    assert "--preset" in error_of([str(demo_onnx), photos, "--preset", "best"])
    assert "--annotations" in error_of([str(demo_onnx), photos, "--annotations", "a.json"])
