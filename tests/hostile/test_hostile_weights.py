"""Weights files that hold something else: one line, status 1, nothing executed or written."""

from __future__ import annotations

import datetime
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.onnx import main
from model.checkpoint import load
from model.errors import CheckpointError, MaskportError
from model.files import weights_file
from model.files.weights_file import STATE_DICT_LINE, read_weights
from model.mask_rcnn import MaskRCNN
from tests.small_checkpoint import LANDMARK, SPEC, saved, sound_state

ROOT = Path(__file__).resolve().parents[2]
DATE = datetime.date(2000, 1, 1)
Writer = Callable[[Path], object]


def _torch(content: object, **options: Any) -> Writer:
    return lambda path: torch.save(content, path, **options)


def _bytes(content: bytes) -> Writer:
    return lambda path: path.write_bytes(content)


def _tar(path: Path) -> None:
    """The container of PyTorch before 0.2."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(DATE, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(path))


def _compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", pickle.dumps({}, 2))
        archive.writestr("weights/data/0", bytes(1000))


def _long_entry(path: Path) -> None:
    """An entry that claims one byte more than the file has."""
    torch.save({LANDMARK: torch.ones(2)}, path)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 20
    content[at : at + 8] = struct.pack("<II", *[len(content) + 1] * 2)
    path.write_bytes(content)


def _refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command on a bad file and return its one line."""
    before = sorted(path.parent.iterdir())
    status = main([str(path)])
    out, err = capsys.readouterr()
    assert (status, out) == (1, ""), err
    assert err.startswith(f"error: {path}: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 1100
    assert sorted(path.parent.iterdir()) == before, "nothing written"
    return err


OBJECTS = {
    "object": _torch({LANDMARK: DATE}),
    "object beside weights": _torch({**sound_state(), "extra": Fraction(1, 2)}),
    "object in a legacy file": _torch({LANDMARK: DATE}, _use_new_zipfile_serialization=False),
    "raw pickle 0": _bytes(pickle.dumps({LANDMARK: DATE}, 0)),
    "raw pickle 2": _bytes(pickle.dumps({LANDMARK: DATE}, 2)),
    "raw pickle 4": _bytes(pickle.dumps({LANDMARK: DATE}, 4)),
    "legacy tar": _tar,
    "model": _torch(MaskRCNN(SPEC)),
    "model in a legacy file": _torch(nn.Linear(2, 2), _use_new_zipfile_serialization=False),
    "model in protocol 4": _torch(nn.Linear(2, 2), pickle_protocol=4),
    "model in a dict": _torch({"model": nn.Linear(2, 2), "epoch": 3}),
    "TorchScript": _torchscript,
}
STATES = {"model": {"model": {"model": sound_state()}}}
OTHER = {
    "empty": _bytes(b""),
    "one byte": _bytes(b"\x80"),
    "start of an archive": _bytes(b"PK\x03\x04"),
    "empty archive": _bytes(b"PK\x05\x06" + bytes(18)),
    "web page": _bytes(b"<!DOCTYPE html><html>404: Not Found</html>\n" * 9),
    "compressed entry": _compressed,
    "entry beyond the file": _long_entry,
    "no tensors": _torch({"epoch": 3, "loss": [0.1, 0.2], "a\nb\x01": "note"}),
    "empty dict": _torch({}),
    "tensor": _torch(torch.zeros(3)),
    "nested lists": _torch([[sound_state()], [1, [2, [3]]]]),
    "none": _torch(None),
    "three wrappers": _torch(STATES),
    "integer keys": _torch(dict(enumerate(sound_state().values()))),
    "mixed keys": _torch({**sound_state(), 7: torch.zeros(2)}),
    "long name": _torch({**sound_state(), "x" * 301: torch.zeros(2)}),
    "name with a line break": _torch({**sound_state(), "a\nb\x01": torch.zeros(2)}),
    "view of one value": _torch({LANDMARK: torch.zeros(1).expand(9000)}),
    "view of one half": _torch({LANDMARK: torch.zeros(1).half().expand(9000)}),
    "one tensor many times": _torch(dict.fromkeys(map(str, range(99)), torch.zeros(1000).half())),
    "another network": _torch(nn.Sequential(nn.Linear(2, 2)).state_dict()),
    "counter of another shape": _torch(
        {**sound_state(), "backbone.body.bn1.num_batches_tracked": torch.zeros(7)}
    ),
}


def test_objects_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    path = tmp_path / "weights.pth"

    for name, write in OBJECTS.items():
        with subtests.test(name):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch deprecates TorchScript
                write(path)
            assert STATE_DICT_LINE in _refused(path, capsys)


def test_other_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    path = tmp_path / "weights.pth"

    for name, write in OTHER.items():
        with subtests.test(name):
            write(path)
            _refused(path, capsys)


# One tensor of a sound state dict in another form; the message must name it.
ODD_TENSORS: dict[str, Callable[[Tensor], object]] = {
    "NaN": lambda t: torch.full_like(t, float("nan")),
    "infinite half": lambda t: (t + 1e9).half(),
    "integers": lambda t: t.long(),
    "booleans": lambda t: t > 0,
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "sparse rows": lambda t: t.to_sparse_csr(),
    "meta": lambda t: t.to("meta"),
    "quantized": lambda t: torch.quantize_per_tensor(t.contiguous(), 0.1, 0, torch.qint8),
    "no elements": lambda t: t.new_zeros(3, 0),
    "scalar": lambda t: t.new_zeros(()),
}


def test_odd_tensors_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for name, change in ODD_TENSORS.items():
        with subtests.test(name):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch deprecates quantized tensors
                state = sound_state()
                path = saved(tmp_path, {**state, LANDMARK: change(state[LANDMARK])})
            assert f"'{LANDMARK}'" in _refused(path, capsys)


def test_the_number_of_tensors_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, {f"w{i}": torch.ones(1) for i in range(9)})
    assert len(read_weights(path).tensors) == 9
    monkeypatch.setattr(weights_file, "_MAX_TENSORS", 8)
    with pytest.raises(CheckpointError, match="9 tensors; expected at most 8"):
        read_weights(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_the_tuples_of_every_pickle_are_limited(is_zip: bool, tmp_path: Path) -> None:
    """One level more than the limit."""
    for depth, reason in ((100, "no tensors"), (101, "nested tuples")):
        key: tuple[object, ...] = ()
        for _ in range(depth):
            key = (key,)
        path = tmp_path / "weights.pth"
        torch.save({key: 1}, path, _use_new_zipfile_serialization=is_zip)
        with pytest.raises(CheckpointError, match=reason):
            read_weights(path)


def _safetensors(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + content


def _entry(shape: str, offsets: str, name: str = "a", dtype: str = "F32") -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


# The library itself refuses all but the last three.
SAFETENSORS = {
    "empty": b"",
    "short": b"\x08\x00",
    "header beyond the file": _safetensors(b"{}", length=3),
    "not JSON": _safetensors(b"}{}{"),
    "offsets beyond the file": _safetensors(f"{{{_entry('[2]', '[0,8]')}}}".encode(), bytes(7)),
    "shape beyond the offsets": _safetensors(f"{{{_entry('[2]', '[0,4]')}}}".encode(), bytes(4)),
    "offsets that overlap": _safetensors(
        f"{{{_entry('[2]', '[0,8]')},{_entry('[2]', '[4,12]', 'b')}}}".encode(), bytes(12)
    ),
    "negative": _safetensors(f"{{{_entry('[-1]', '[0,4]')}}}".encode(), bytes(4)),
    "unknown type": _safetensors(f"{{{_entry('[1]', '[0,4]', 'a', 'F99')}}}".encode(), bytes(4)),
    "torch file": b"PK\x03\x04" + bytes(64),
    "no elements": _safetensors(f"{{{_entry('[0]', '[0,0]')}}}".encode()),
    "no tensors": _safetensors(b"{}"),
    "another network": _safetensors(f"{{{_entry('[1]', '[0,4]')}}}".encode(), bytes(4)),
}


def test_other_safetensors_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    path = tmp_path / "weights.safetensors"

    for name, content in SAFETENSORS.items():
        with subtests.test(name):
            path.write_bytes(content)
            _refused(path, capsys)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_anywhere(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(sound_state(), path)
    else:
        torch.save(sound_state(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    assert load(path).spec.num_foreground == 2
    for size in np.linspace(1, len(whole) - 1, 20).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="truncated"):
            load(path)


def test_random_damage_is_a_checkpoint_error(tmp_path: Path) -> None:
    """Of the pickle's own bytes; `make soak` damages whole files, in children."""
    source, path = tmp_path / "sound.pth", tmp_path / "damaged.pth"
    torch.save(sound_state(), source)
    with zipfile.ZipFile(source) as archive:
        content = {e.filename: archive.read(e) for e in archive.infolist()}
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(100):
        body = bytearray(content["sound/data.pkl"])
        for at in rng.integers(0, len(body), rng.integers(1, 4)):
            body[at] = rng.integers(256)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**content, "sound/data.pkl": bytes(body)}.items():
                archive.writestr(name, data)
        try:
            load(path)
        except MaskportError as error:
            messages.append(str(error))
    assert len(messages) >= 50
    assert all(line.startswith(str(path)) for line in messages)


PLACES: dict[str, tuple[Writer, str]] = {
    "folder": (lambda path: path.mkdir(), "a folder"),
    "device": (lambda path: path.symlink_to("/dev/null"), "a pipe or device"),
    "link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "link to nothing": (lambda path: path.symlink_to("nothing"), "no such file"),
    "nothing": (lambda _: None, "no such file"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl", ".h5"])
def test_only_regular_files_are_read(
    suffix: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    for name, (create, message) in PLACES.items():
        with subtests.test(name):
            path = tmp_path / name / f"weights{suffix}"
            path.parent.mkdir()
            create(path)
            assert message in _refused(path, capsys)


@pytest.mark.parametrize("name", ["x" * 300 + ".pth", "missing/weights.pth", "/dev/null"])
def test_names_that_are_no_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / name}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path)
    path.chmod(0)
    assert "Permission denied" in _refused(path, capsys)


def test_the_command_prints_one_line(tmp_path: Path) -> None:
    """As users run it: no warning of a library beside the line, no traceback."""
    path = tmp_path / "weights.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _torchscript(path)
    command = [sys.executable, "-m", "export.onnx", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]
