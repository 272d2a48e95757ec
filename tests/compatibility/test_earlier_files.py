"""Files that version 0.1.0 wrote at commit 4fb7c12 open and give the same results.

`files/` holds the tiny model of `tests.reliability.tiny` in both lowerings, its INT8 file with the
calibration table, and a `predict` run over four photos that was interrupted after the second.
`results.jsonl` is the same run without the interruption.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from calib import quantize
from runtime import predict
from runtime.sessions.open import open_session

FILES = Path(__file__).parent / "files"


@pytest.mark.parametrize("name", ["standard.onnx", "native.onnx"])
def test_outputs_are_those_of_a_bare_session(name: str) -> None:
    path = FILES / name
    rng = np.random.default_rng(0)
    inputs = {
        "images": rng.random((1, 3, 64, 96), np.float32),
        "image_hw": np.array([[64, 96]], np.float32),
    }
    bare = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in bare.get_outputs()]
    session = open_session(path)
    outputs = session.run(inputs)
    assert session.artifact.manifest.lowering == path.stem
    session.close()
    assert sorted(outputs) == sorted(names)
    assert int(outputs["counts"][0]) > 0
    for output, expected in zip(names, bare.run(names, inputs), strict=True):
        assert outputs[output].dtype == expected.dtype
        np.testing.assert_array_equal(outputs[output], expected, err_msg=output)


def _scales(path: Path) -> dict[str, list[float]]:
    """Scales of activations (one number) and of weights (one per channel), in order."""
    graph = onnx.load(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales: dict[str, list[float]] = {"activations": [], "weights": []}
    for node in graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            scale = values[node.input[1]]
            key = "weights" if scale.ndim else "activations"
            scales[key] += [float(number) for number in scale.reshape(-1)]
    return {key: sorted(set(numbers)) for key, numbers in scales.items()}


def test_the_calibration_table_gives_the_same_scales(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table holds all four photos, so nothing is calibrated again."""
    table = tmp_path / "int8.table.json"
    shutil.copy(FILES / table.name, table)
    output = tmp_path / "int8.onnx"
    command = [FILES / "standard.onnx", FILES / "photos", "-o", output, "--rounding", "nearest"]
    command += ["--reduce-range", "no"]  # by default the CPU decides
    assert quantize.main([str(word) for word in command]) == 0, capsys.readouterr().err
    scales = _scales(output)
    for kind, numbers in _scales(FILES / "int8.onnx").items():
        np.testing.assert_allclose(scales[kind], numbers, rtol=1e-6, err_msg=kind)
    assert scales["activations"]
    largest = max(t["largest"] for t in json.loads(table.read_text("utf-8"))["tensors"].values())
    # A signed code of 127 stands for at most the largest value that was observed.
    assert max(scales["activations"]) <= largest / 127
    assert json.loads(table.read_text("utf-8")) == json.loads(
        (FILES / table.name).read_text("utf-8")
    )


def _records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_an_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    shutil.copytree(FILES / "run", folder)
    shutil.copytree(FILES / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    before = (folder / "results.jsonl").read_bytes()
    options = ["--save", "jsonl,json,rle", "--resume", "--threads", "1"]
    command = [str(FILES / "standard.onnx"), "photos", "-o", "run", *options]
    assert predict.main(command) == 0
    after = (folder / "results.jsonl").read_bytes()
    assert after.startswith(before)
    records, expected = _records(folder / "results.jsonl"), _records(FILES / "results.jsonl")
    assert [record["image"] for record in records] == [record["image"] for record in expected]
    for record, same in zip(records, expected, strict=True):
        assert _without_floats(record) == _without_floats(same)
        np.testing.assert_allclose(_floats(record), _floats(same), atol=1e-3, rtol=1e-4)


def _without_floats(record: dict[str, object]) -> list[tuple[object, ...]]:
    return [(row["label"], row["name"]) for row in record["detections"]]


def _floats(record: dict[str, object]) -> list[list[float]]:
    return [[row["score"], *row["box_xyxy"]] for row in record["detections"]]
