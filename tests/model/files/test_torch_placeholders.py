"""Objects that trainings keep beside the weights do no harm, and do nothing at all."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch._weights_only_unpickler import load

from model.errors import CheckpointError
from model.files.torch_placeholders import Inert, placeholders
from model.files.weights_file import read_tensors, read_weights

STATE = {"a.b": torch.arange(6.0).reshape(2, 3), "a.c": torch.ones(2)}


class HistoryBuffer:
    """As `mmengine.logging.history_buffer` has it: two arrays and a number."""

    def __init__(self) -> None:
        self.max_length = 1_000_000
        self._log_history = np.array([0.5, 0.25])
        self._count_history = np.array([1, 1])


@pytest.fixture
def buffer(monkeypatch: pytest.MonkeyPatch) -> HistoryBuffer:
    """One that pickles under mmengine's name."""
    name = "mmengine.logging.history_buffer"
    module = ModuleType(name)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for part in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(HistoryBuffer, "__module__", name)
    return HistoryBuffer()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_training_of_mmengine_is_read(
    buffer: HistoryBuffer, is_zip: bool, tmp_path: Path
) -> None:
    path = tmp_path / "epoch_12.pth"
    hub = {"log_scalars": {"train/loss": buffer}, "runtime_info": {"epoch": 12}}
    content = {"meta": {"cfg": "a = 1"}, "state_dict": STATE, "message_hub": hub}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    weights = read_weights(path)
    assert torch.equal(weights.tensors["a.b"], STATE["a.b"])
    assert weights.meta == {"cfg": "a = 1"}


@pytest.mark.parametrize("beside", [np.float64(0.375), np.int64(3), np.array([1.0, 2.0])])
def test_numbers_of_numpy_beside_weights_do_no_harm(beside: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": STATE, "best": beside, "meta": {"mAP": beside}}, path)
    assert list(read_tensors(path)) == list(STATE)


@pytest.mark.parametrize("dtype", ["f4", "<f8", ">f4", "f2", "i8", "b1"])
def test_arrays_by_name_are_weights(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    values = np.arange(6).reshape(2, 3).astype(dtype)
    torch.save({"model": {"a": values, "b": np.asfortranarray(values)}}, path)
    found = read_tensors(path)
    for name in "ab":
        assert found[name].tolist() == values.tolist()
        assert found[name].is_floating_point() == (values.dtype.kind == "f")


@pytest.mark.parametrize(
    "values",
    [np.array([{}, []], object), np.array(["a"]), np.zeros(2, "i4,f4"), np.zeros(2, "u2,u2")],
    ids=["objects", "texts", "fields", "more-fields"],
)
def test_arrays_of_anything_else_are_refused(values: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": values}}, path)
    with pytest.raises(CheckpointError, match=r"tensor 'a': it has an array"):
        read_tensors(path)


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _array(shape: bytes, content: bytes, code: str = "f4") -> bytes:
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85\x89\x87R"
    dtype = b"cnumpy\ndtype\n" + _text(code) + b"\x89\x88\x87R"
    text = b"c_codecs\nencode\n" + _text(content.decode("latin-1")) + _text("latin1") + b"\x86R"
    return made + b"(K\x01" + shape + dtype + b"\x89" + text + b"tb"


def _file(path: Path, value: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}" + _text("a") + value + b"s.")
        archive.writestr("w/version", b"3\n")
        archive.writestr("w/byteorder", b"little")
    return path


def test_a_written_array_is_read(tmp_path: Path) -> None:
    """So that what the next test sees refused is refused for what it claims."""
    path = _file(tmp_path / "w.pth", _array(b"K\x02\x85", struct.pack("<2f", 1, 2)))
    assert read_tensors(path)["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(_array(b"K\x09\x85", b"12345678"), id="more-than-its-bytes"),
        pytest.param(_array(b"J\xff\xff\xff\xff\x85", b"1234"), id="negative"),
        pytest.param(_array(b"N", b"1234"), id="no-shape"),
        pytest.param(_array(b"K\x01\x85", b"12345678", "O"), id="addresses"),
        pytest.param(_array(b"K\x01\x85", b"1234", "V4"), id="bytes"),
        pytest.param(b"cnumpy\ndtype\n)\x81", id="a-type"),
        pytest.param(b"cnumpy\nndarray\nK\x02\x85R", id="an-array-by-call"),
        pytest.param(b"cmmengine.logging.history_buffer\nHistoryBuffer\n)R", id="a-stand-in"),
        pytest.param(b"cnumpy\nload\n" + _text("x.npy") + b"\x85R", id="numpy-load"),
        pytest.param(b"cnumpy.core.multiarray\nfromfile\n)R", id="fromfile"),
        pytest.param(b"cmmengine.logging.history_buffer\nos.system\n)R", id="dotted"),
    ],
)
def test_hostile_arrays_are_refused(value: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"w\.pth: "):
        read_tensors(_file(tmp_path / "w.pth", value))


class _Trap:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def test_an_object_within_a_stand_in_is_refused(buffer: HistoryBuffer, tmp_path: Path) -> None:
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    buffer._count_history = _Trap(canary)  # type: ignore[assignment]
    torch.save({"state_dict": STATE, "message_hub": buffer}, path)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        read_tensors(path)
    assert not canary.exists()


def test_a_stand_in_takes_nothing_and_is_forgotten() -> None:
    made = Inert(1, 2)
    made.__setstate__({"__class__": int, "read": 3})
    assert type(made) is Inert
    assert not vars(made)
    before = set(torch.serialization.get_safe_globals())
    with placeholders():
        assert len(torch.serialization.get_safe_globals()) > len(before)
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_stand_in_is_called_by_nobody() -> None:
    """The file may name it, and make it; what it made cannot be called."""
    body = b"\x80\x02cmmengine.logging.history_buffer\nHistoryBuffer\n)R)R."
    with placeholders(), pytest.raises(pickle.UnpicklingError, match="unrecognized function"):
        load(io.BytesIO(body))
