"""Files that want data from elsewhere: refused by everything that opens ONNX, nothing is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from calib.quantize import main as quantize
from export.diagnosis.model_file import diagnose_onnx
from export.engine import main as engine
from export.inspect import main as inspect
from export.onnx_file import drop_seal, read_onnx
from model.errors import ArtifactError
from runtime.predictor import Predictor
from tests.hostile.external_data import ATTACKS, CANARY, VICTIM, attack, point_at
from tests.reliability import tiny

pytestmark = pytest.mark.timeout(300)


class _Opened:
    """Paths that Python opened while it listened; an audit hook cannot be taken off again."""

    def __init__(self) -> None:
        self.is_on = False
        self.paths: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.is_on and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            self.paths.append(os.fsdecode(arguments[0]))


_OPENED = _Opened()


@contextmanager
def _noted() -> Iterator[list[str]]:
    _OPENED.paths.clear()
    _OPENED.is_on = True
    try:
        yield _OPENED.paths
    finally:
        _OPENED.is_on = False


def _outside(paths: list[str], root: Path) -> list[str]:
    """What was opened of the scene, the model and the photo apart, and of the places named."""
    ours = {str(root / "model" / "model.onnx"), str(root / "photo.png")}
    places = (str(root.resolve()), "/dev/zero", "/proc/self/environ", "/proc/self/mem")
    return [p for p in map(os.path.realpath, paths) if p.startswith(places) and p not in ours]


def _quantize(path: str) -> int:
    photo = Path(path).parents[1] / "photo.png"
    from PIL import Image

    Image.fromarray(tiny.photo()).save(photo)
    return quantize([path, str(photo), "-o", str(Path(path).parent / "out.onnx")])


def _doctor(path: str) -> int:
    """The part of the command that reads the file; the rest looks at the machine, for seconds."""
    problems = [f for f in diagnose_onnx(Path(path)).findings if f.status == "problem"]
    print(*(f"{finding.subject}: {finding.detail}" for finding in problems), sep="\n")
    return 1 if problems else 0


COMMANDS: dict[str, Callable[[str], int]] = {
    "inspect": lambda path: inspect([path]),
    "doctor": _doctor,
    "engine": lambda path: engine([path]),
    "quantize": _quantize,
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_the_runtime_refuses(kind: str, tiny_onnx: Path, tmp_path: Path) -> None:
    path = attack(kind, tiny_onnx, tmp_path)
    refused = pytest.raises(ArtifactError, match="takes tensors from another file")
    with _noted() as opened, refused as caught:
        Predictor.open(path, threads=1)
    assert "\n" not in str(caught.value)
    assert str(path) in opened
    assert not _outside(opened, tmp_path)


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses(
    kind: str, command: str, tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attack(kind, tiny_onnx, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with _noted() as opened:
        status = COMMANDS[command](str(path))
    out, err = capsys.readouterr()
    assert status == 1, out + err
    assert "Traceback" not in out + err
    assert not _outside(opened, tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "photo.png") == before
    told = out if command == "doctor" else err
    assert "external data" in told or "takes its data from" in told


def _answer(path: Path) -> np.ndarray:
    session = ort.InferenceSession(path)
    image = tiny.photo(64, 64).transpose(2, 0, 1)[None].astype(np.float32) / 255
    feed = {"images": image, "image_hw": np.array([[64, 64]], np.float32)}
    return session.run(["scores"], feed)[0]


def test_the_canary_shows_where_it_is_read(tiny_onnx: Path, tmp_path: Path) -> None:
    """The same file with the data in a plain file beside it opens, and answers otherwise."""
    model = drop_seal(onnx.load(tiny_onnx))
    (tensor,) = (t for t in model.graph.initializer if t.name == VICTIM)
    data = np.full(tuple(tensor.dims), CANARY, np.float32)
    data[0] = -CANARY
    (tmp_path / "w.bin").write_bytes(data.tobytes())
    point_at(tensor, {"location": "w.bin"})
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert np.abs(_answer(path) - _answer(tiny_onnx)).max() > 0.01
    read = read_onnx(path).model
    (tensor,) = (t for t in read.graph.initializer if t.name == VICTIM)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), data)
    with pytest.raises(ArtifactError, match="takes tensors from another file"):
        Predictor.open(path)
