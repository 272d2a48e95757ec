"""ONNX files with tensors in other files: the runtime refuses all, the tools all but plain files.

onnx itself refuses every file that the tools refuse.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from calib.quantize import main as quantize
from export.diagnosis.model_file import diagnose_onnx
from export.engine import main as engine
from export.inspect import main as inspect
from export.onnx_file import read_onnx, remove_checksum
from model.errors import ArtifactError
from runtime.artifacts.checksum import append_checksum
from runtime.predictor import Predictor
from tests.reliability import tiny

pytestmark = pytest.mark.timeout(300)

# The bias of the box head's scores: other values change every score.
TENSOR = "box_head.cls_score.bias"
Prepare = Callable[[Path, bytes], dict[str, str]]


def _file(**entries: str) -> Prepare:
    def prepare(folder: Path, data: bytes) -> dict[str, str]:
        (folder / "w.bin").write_bytes(data)
        return {
            "location": "w.bin",
            **{k: v.format(more=len(data) + 1) for k, v in entries.items()},
        }

    return prepare


def _at(location: str) -> Prepare:
    return lambda *_: {"location": location}


def _absolute(folder: Path, data: bytes) -> dict[str, str]:
    return {"location": str(folder / _file()(folder, data)["location"])}


def _link(folder: Path, data: bytes) -> dict[str, str]:
    (folder / "v.bin").write_bytes(data)
    (folder / "w.bin").symlink_to("v.bin")
    return {"location": "w.bin"}


def _two_names(folder: Path, data: bytes) -> dict[str, str]:
    (folder / "v.bin").write_bytes(data)
    os.link(folder / "v.bin", folder / "w.bin")
    return {"location": "w.bin"}


def _folder(folder: Path, _: bytes) -> dict[str, str]:
    (folder / "w.bin").mkdir()
    return {"location": "w.bin"}


REFUSED: dict[str, Prepare] = {
    "absolute": _absolute,
    "in the folder above": _at("../w.bin"),
    "link": _link,
    "file with two names": _two_names,
    "folder": _folder,
    "no location": _at(""),
    "no such file": _at("none.bin"),
    "offset that is no number": _file(offset="x"),
    "offset beyond the file": _file(offset="{more}"),
    "length beyond the file": _file(length="{more}"),
    "short file": lambda folder, data: _file()(folder, data[:-1]),
}


def _write(prepare: Prepare, sound: Path, root: Path) -> Path:
    """Move one tensor of a sound export out of it, and write a new checksum."""
    model = remove_checksum(onnx.load(sound))
    (tensor,) = (t for t in model.graph.initializer if t.name == TENSOR)
    folder = root / "model"
    folder.mkdir(parents=True)
    entries = prepare(folder, np.full(tuple(tensor.dims), 3.0, np.float32).tobytes())
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    append_checksum(path)
    return path


def _values(model: onnx.ModelProto) -> np.ndarray:
    (tensor,) = (t for t in model.graph.initializer if t.name == TENSOR)
    return onnx.numpy_helper.to_array(tensor)


def test_other_places_are_refused(
    tiny_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.setattr(ort, "InferenceSession", None)
    for name, prepare in REFUSED.items():
        with subtests.test(name):
            path = _write(prepare, tiny_onnx, tmp_path / name)
            with pytest.raises(Exception, match=r"."):
                _values(onnx.load(path))
            with pytest.raises(ArtifactError, match=r"external data|takes its data from") as caught:
                read_onnx(path)
            assert "\n" not in str(caught.value)
            with pytest.raises(ArtifactError, match="its tensors are in another file"):
                Predictor.open(path, threads=1)


def _doctor(path: str) -> int:
    """The part of the command that reads the file; the others look at the machine, for seconds."""
    problems = [f for f in diagnose_onnx(Path(path)).findings if f.status == "problem"]
    print(*(f"{finding.subject}: {finding.detail}" for finding in problems), sep="\n")
    return 1 if problems else 0


def _quantize(path: str) -> int:
    photo = str(Path(path).parents[1] / "photo.png")
    return quantize([path, photo, "-o", str(Path(path).parent / "out.onnx")])


@pytest.mark.parametrize(
    "command", [lambda p: inspect([p]), lambda p: engine([p]), _doctor, _quantize],
    ids=["inspect", "engine", "doctor", "quantize"],
)  # fmt: skip
def test_every_command_refuses(
    command: Callable[[str], int],
    tiny_onnx: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _write(REFUSED["in the folder above"], tiny_onnx, tmp_path)
    Image.fromarray(tiny.photo()).save(tmp_path / "photo.png")
    before = sorted(tmp_path.rglob("*"))
    assert command(str(path)) == 1
    out, err = capsys.readouterr()
    assert "takes its data from" in out + err
    assert "Traceback" not in out + err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plain_file_beside_the_model_is_read_by_the_tools(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    path = _write(_file(), tiny_onnx, tmp_path)
    np.testing.assert_array_equal(_values(read_onnx(path).model), 3.0)
    with pytest.raises(ArtifactError, match="its tensors are in another file"):
        Predictor.open(path)
