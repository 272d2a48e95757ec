"""Zoo files that are not plain arrays by name: one line, and no object is made.

The callables in these files are `datetime.date` and the like, which do nothing.
"""

from __future__ import annotations

import datetime
import pickle
import struct
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from export.onnx import main
from model.checkpoint import load
from model.errors import CheckpointError, MaskportError
from tests.small_checkpoint import LANDMARK, sound_state, zoo

DATE = datetime.date(2000, 1, 1)


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _in_model(value: bytes) -> bytes:
    """`{"model": {LANDMARK: value}}`, where `value` is opcodes that push one object."""
    return b"\x80\x04}" + _text("model") + b"}" + _text(LANDMARK) + value + b"ss."


def _array(shape: bytes, data: bytes) -> bytes:
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    dtype = b"cnumpy\ndtype\n" + _text("f4") + b"\x89\x88\x87R"
    size = struct.pack("<I", len(data))
    return made + b"(K\x01" + shape + dtype + b"\x89B" + size + data + b"tb"


_YMD = b"M\xd0\x07K\x01K\x01"  # 2000, 1, 1
# Every opcode that can call, and what Python's own unpickler makes of it.
CALLS = {
    "REDUCE": (b"cdatetime\ndate\n" + _YMD + b"\x87R", DATE),
    "REDUCE of a stacked name": (
        _text("datetime") + _text("date") + b"\x93" + _YMD + b"\x87R", DATE
    ),
    "INST": (b"(" + _YMD + b"idatetime\ndate\n", DATE),
    "OBJ": (b"(cdatetime\ndate\n" + _YMD + b"o", DATE),
    "NEWOBJ": (b"cdatetime\ndate\n" + _YMD + b"\x87\x81", DATE),
    "NEWOBJ_EX": (b"cdatetime\ndate\n" + _YMD + b"\x87}\x92", DATE),
    "BUILD": (b"ctypes\nSimpleNamespace\n)R}b", SimpleNamespace()),
    "a nested call": (b"](cdatetime\ndate\n" + _YMD + b"\x87Re", [DATE]),
}  # fmt: skip


def _refused(body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command on a bad file and return its one line."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(body)
    status = main([str(path)])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {path}: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 600
    assert list(tmp_path.iterdir()) == [path], "nothing written"
    return err


def test_nothing_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for name, (opcodes, made) in CALLS.items():
        with subtests.test(name):
            body = _in_model(opcodes)
            assert pickle.loads(body)["model"][LANDMARK] == made
            assert "nothing in it was executed" in _refused(body, tmp_path, capsys)


# Opcodes and names of which some would make an object elsewhere, refused by name or by opcode.
NOT_PLAIN = {
    "protocol 0": pickle.dumps({LANDMARK: DATE}, 0),
    "protocol 2": pickle.dumps({LANDMARK: DATE}, 2),
    "protocol 5": pickle.dumps({LANDMARK: DATE}, 5),
    "beside weights": zoo(config=DATE),
    "in a shape": _in_model(_array(b"cdatetime\ndate\n" + _YMD + b"\x87R", bytes(4))),
    "dotted name": _in_model(_text("datetime") + _text("date.fromordinal") + b"\x93K\x01\x85R"),
    "name with a line break": _in_model(_text("datetime\n") + _text("date") + b"\x93)R"),
    "name of another type": _in_model(b"](NNeK\x01\x93"),
    "long name": _in_model(_text("x" * 61) + _text("y" * 61) + b"\x93)R"),
    "known name called otherwise": _in_model(
        b"c_codecs\nencode\n" + _text("a") + _text("ascii") + b"\x86R"
    ),
    "call of a text": _in_model(_text("date") + b")R"),
    "tensors of torch": pickle.dumps(sound_state(), 2),
    "counter": pickle.dumps(Counter("abc"), 4),
    "set": pickle.dumps({"model": {LANDMARK: {1, 2}}}, 4),
    "persistent id": b"\x80\x02" + _text("storage") + b"Q.",
    "persistent id as text": b"Pstorage\n.",
    "extension code": b"\x80\x02\x82\x01.",
    "buffer out of band": b"\x80\x05\x97.",
    "array of objects": pickle.dumps({LANDMARK: np.array([{}, None], object)}, 3),
    "array of texts": pickle.dumps({LANDMARK: np.array(["a"])}, 3),
    "records": pickle.dumps({LANDMARK: np.zeros(2, "f4,i4")}, 3),
    "records in protocol 5": pickle.dumps({LANDMARK: np.zeros(2, "f4,i4")}, 5),
    "complex numbers": pickle.dumps({LANDMARK: np.zeros(2, complex)}, 3),
    "one value more than its bytes": _in_model(_array(b"K\x02\x85", bytes(4))),
    "too many axes": _in_model(_array(b"(" + b"K\x01" * 9 + b"t", bytes(4))),
    "shape that is a text": _in_model(_array(_text("4"), bytes(4))),
    "tuple as a key": b"\x80\x02}K\x01K\x02\x86Ns.",
    "state of a text": _in_model(_text("a") + b"}b"),
    "state of a list": _in_model(b"]N\x86b"),
    "append to nothing": b"\x80\x02Na.",
    "odd items": b"\x80\x02}(NNNu.",
}
DAMAGED = {
    "empty": b"",
    "no stop": b"\x80\x02}",
    "only stop": b".",
    "memo of nothing": b"\x80\x02q\x00.",
    "memo beyond what was put": b"\x80\x02Nr\x10\x00\x00\x00j\x0f\x00\x00\x00.",
    "pop of nothing": b"\x80\x02000.",
    "length beyond the file": b"\x80\x04\x8e" + struct.pack("<Q", 4) + b"abc",
    "negative length": b"\x80\x02T\xff\xff\xff\xff.",
    "not UTF-8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "unknown protocol": b"\x80\x63N.",
    "web page": b"<!DOCTYPE html><html>404: Not Found</html>\n" * 9,
}
# Sound pickles of something else.
OTHER = {
    "archive": b"PK\x03\x04" + bytes(64),
    "list": pickle.dumps([1, 2]),
    "model is a text": pickle.dumps({"model": "mask r-cnn"}),
    "no arrays": pickle.dumps({"model": {"a": 1.5, "b\n": "x"}}),
    "integer keys": pickle.dumps({"model": {1: np.zeros(2, np.float32)}}, 3),
    "empty array": pickle.dumps({LANDMARK: np.zeros((0, 4), np.float32)}, 3),
    "array never filled": _in_model(
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    ),
    "NaN": pickle.dumps({"model": {LANDMARK: np.full(2, np.nan, np.float32)}}, 2),
    "another network": pickle.dumps({"model": {"a.b": np.zeros(2, np.float32)}}, 2),
    "Caffe2": pickle.dumps({"blobs": {"conv1_w": np.zeros(2, np.float32)}}, 2),
    "Caffe2 without blobs": pickle.dumps({"conv1_w": np.zeros(2, np.float32)}, 2),
}


def test_files_that_are_no_arrays_by_name_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    for name, body in (NOT_PLAIN | DAMAGED | OTHER).items():
        with subtests.test(name):
            line = _refused(body, tmp_path, capsys)
            assert "detectron2" in line or name in OTHER or name == "empty"
            if name.startswith("Caffe2"):
                assert "Caffe2" in line
                assert "load it in detectron2" in line


@pytest.mark.parametrize("protocol", range(6))
def test_a_sound_file_is_read_and_a_truncated_one_is_not(protocol: int, tmp_path: Path) -> None:
    path, whole = tmp_path / "model.pkl", zoo(protocol)
    path.write_bytes(whole)
    assert load(path).spec.num_foreground == 2
    for size in np.linspace(1, len(whole) - 1, 12).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="truncated"):
            load(path)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_random_damage_is_a_checkpoint_error(protocol: int, tmp_path: Path) -> None:
    small = {"model": {"a.b": np.ones(3, np.float32), "c.d": np.float64(2)}, "e": [1, {"f": None}]}
    path, whole = tmp_path / "model.pkl", pickle.dumps(small, protocol)
    rng = np.random.default_rng(protocol)
    messages = set()
    for _ in range(200):
        body = bytearray(whole)
        for at in rng.integers(0, len(body), rng.integers(1, 5)):
            body[at] = rng.integers(256)
        path.write_bytes(body)
        with pytest.raises(MaskportError) as caught:  # undamaged, it is no Mask R-CNN either
            load(path)
        messages.add(str(caught.value))
    assert all(line.startswith(str(path)) and "\n" not in line for line in messages)
    assert len(messages) > 10
