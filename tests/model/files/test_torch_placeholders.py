"""Python objects beside the weights: known ones become inert placeholders, others are refused."""

from __future__ import annotations

import datetime
import io
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
from model.files.pickled_array import Allowance, RefusedError
from model.files.torch_placeholders import Inert, StoredArray, StoredType, placeholders, values_of
from model.files.weights_file import read_weights

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
    assert weights.content["meta"] == {"cfg": "a = 1"}


@pytest.mark.parametrize("beside", [np.float64(0.375), np.int64(3), np.array([1.0, 2.0])])
def test_numbers_of_numpy_beside_weights_do_no_harm(beside: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": STATE, "best": beside, "meta": {"mAP": beside}}, path)
    assert list(read_weights(path).tensors) == list(STATE)


@pytest.mark.parametrize("dtype", ["f4", "<f8", ">f4", "f2", "i8", "b1"])
def test_arrays_by_name_are_weights(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    values = np.arange(6).reshape(2, 3).astype(dtype)
    torch.save({"model": {"a": values, "b": np.asfortranarray(values)}}, path)
    tensors = read_weights(path).tensors
    for name in "ab":
        assert tensors[name].tolist() == values.tolist()
        assert tensors[name].is_floating_point() == (values.dtype.kind == "f")


@pytest.mark.parametrize(
    "values",
    [np.array([{}, []], object), np.array(["a"]), np.zeros(2, "i4,f4"), np.zeros(2, "u2,u2")],
    ids=["objects", "texts", "fields", "more-fields"],
)
def test_arrays_of_anything_else_are_refused(values: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": values}}, path)
    with pytest.raises(CheckpointError, match=r"tensor 'a': it has an array"):
        read_weights(path)


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _file(path: Path, value: bytes) -> Path:
    """A torch archive whose tensor "a" is made by these opcodes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}" + _text("a") + value + b"s.")
        archive.writestr("w/version", b"3\n")
        archive.writestr("w/byteorder", b"little")
    return path


# Known names in place of a tensor, and names that only resemble them.
NO_ARRAYS = {
    "a type": b"cnumpy\ndtype\n)\x81",
    "an array by a call": b"cnumpy\nndarray\nK\x02\x85R",
    "a placeholder": b"cmmengine.logging.history_buffer\nHistoryBuffer\n)R",
    "another name": b"cdatetime\ndate\n)R",
    "another name of NumPy": b"cnumpy.core.multiarray\narange\n)R",
    "a dotted name": b"cmmengine.logging.history_buffer\nHistoryBuffer.update\n)R",
}


def test_only_arrays_are_weights(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, value in NO_ARRAYS.items():
        with subtests.test(name), pytest.raises(CheckpointError, match=r"w\.pth: "):
            read_weights(_file(tmp_path / "w.pth", value))


def _stored(shape: object, content: object, code: str = "f4", order: object = "<") -> StoredArray:
    dtype = StoredType(code, False, True)
    dtype.__setstate__((3, order, None, None, None, -1, -1, 0))
    array = StoredArray()
    array.__setstate__((1, shape, dtype, False, content))
    return array


def test_an_array_needs_a_shape_that_fits_its_bytes(subtests: pytest.Subtests) -> None:
    assert values_of(_stored((2,), struct.pack("<2f", 1, 2)), Allowance(8)).tolist() == [1.0, 2.0]
    rows = {
        "one value more than its bytes": _stored((3,), bytes(8)),
        "one byte more than its values": _stored((2,), bytes(9)),
        "more bytes than the file": _stored((3,), bytes(12)),
        "negative": _stored((-1,), bytes(4)),
        "no shape": _stored(None, bytes(4)),
        "too many sides": _stored((1,) * 9, bytes(4)),
        "no bytes": _stored((1,), None),
        "objects": _stored((1,), bytes(8), "O"),
        "bytes": _stored((1,), bytes(4), "V4"),
        "no byte order": _stored((1,), bytes(4), order=4),
        "no description": StoredArray(),
    }

    for name, stored in rows.items():
        with subtests.test(name), pytest.raises(RefusedError, match=r"array"):
            values_of(stored, Allowance(8))


def test_an_object_within_a_placeholder_is_refused(buffer: HistoryBuffer, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    buffer._count_history = datetime.date(2000, 1, 1)  # type: ignore[assignment]
    torch.save({"state_dict": STATE, "message_hub": buffer}, path)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        read_weights(path)


def test_a_placeholder_keeps_nothing_and_is_forgotten() -> None:
    made = Inert(1, 2)
    made.__setstate__({"__class__": int, "read": 3})
    assert type(made) is Inert
    assert not vars(made)
    before = set(torch.serialization.get_safe_globals())
    with placeholders():
        assert len(torch.serialization.get_safe_globals()) > len(before)
    assert set(torch.serialization.get_safe_globals()) == before
    # A file may name it and make it, but not call what it made.
    body = b"\x80\x02cmmengine.logging.history_buffer\nHistoryBuffer\n)R)R."
    with placeholders(), pytest.raises(pickle.UnpicklingError, match="unrecognized function"):
        load(io.BytesIO(body))
