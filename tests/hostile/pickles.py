"""Hostile pickles, most of them written opcode by opcode."""

from __future__ import annotations

import pickle
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from tests.hostile.canary import LANDMARK, Trap, sound_state

Body = Callable[[Path], bytes]


def zoo(protocol: int = 3, **beside: object) -> bytes:
    """The sound checkpoint as detectron2's zoo stores one."""
    model = {name: tensor.numpy() for name, tensor in sound_state().items()}
    content = {"model": model, "__author__": "a test", "matching_heuristics": True}
    return pickle.dumps(content | beside, protocol)


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _in_model(value: bytes) -> bytes:
    """`{"model": {LANDMARK: value}}`, where `value` is opcodes that push one object."""
    return b"\x80\x04}" + _text("model") + b"}" + _text(LANDMARK) + value + b"ss."


def _touch(canary: Path) -> bytes:
    return _text(f"touch '{canary}'")


def _call(name: bytes, argument: bytes) -> bytes:
    return b"c" + name + argument + b"\x85R"


def _array(shape: bytes, data: bytes, code: str = "f4") -> bytes:
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    dtype = b"cnumpy\ndtype\n" + _text(code) + b"\x89\x88\x87R"
    size = struct.pack("<I", len(data))
    return made + b"(K\x01" + shape + dtype + b"\x89B" + size + data + b"tb"


def _system(canary: Path) -> bytes:
    return _in_model(_call(b"os\nsystem\n", _touch(canary)))


def _stacked(module: str, name: str, argument: bytes) -> bytes:
    return _in_model(_text(module) + _text(name) + b"\x93" + argument + b"\x85R")


def _evaluated(canary: Path) -> bytes:
    code = f"open({str(canary)!r}, 'w').close()"
    return _in_model(_call(b"builtins\neval\n", _text(code)))


def _getattr_chain(canary: Path) -> bytes:
    """`getattr(__import__("os"), "system")(…)`."""
    imported = _call(b"builtins\n__import__\n", _text("os"))
    found = b"cbuiltins\ngetattr\n" + imported + _text("system") + b"\x86R"
    return _in_model(found + _touch(canary) + b"\x85R")


def _nested_reduce(canary: Path) -> bytes:
    """The call hides in the shape of an array that is otherwise in order."""
    shape = _call(b"posix\nsystem\n", _touch(canary)) + b"\x85"
    return _in_model(_array(shape, bytes(4)))


def _aliased_arrays(_: Path) -> bytes:
    """One text of 100 kB, of which each of 9,000 calls would make bytes anew."""
    text = _text("x" * 100_000) + b"q\x00"
    again = b"c_codecs\nencode\nh\x00" + _text("latin1") + b"\x86R"
    return b"\x80\x02]" + text + b"0(" + again * 9_000 + b"e."


def _doubling(_: Path) -> bytes:
    """A list of a list of a list, each twice: 2^60 zeros to whom it follows."""
    levels = b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(60))
    return _in_model(b"]" + levels)


def _one_array_often(_: Path) -> bytes:
    """One array of 400 kB under 10,000 names."""
    first = _array(struct.pack("<BI", 0x4A, 100_000) + b"\x85", bytes(400_000)) + b"q\x00"
    names = b"".join(_text(f"layer.{i}") + b"h\x00" for i in range(10_000))
    return b"\x80\x03}" + b"(" + _text("a.b") + first + names + b"u."


PICKLES: dict[str, Body] = {
    "code-system": _system,
    "code-protocol-0": lambda canary: pickle.dumps({LANDMARK: Trap(canary)}, 0),
    "code-protocol-2": lambda canary: pickle.dumps({LANDMARK: Trap(canary)}, 2),
    "code-protocol-5": lambda canary: pickle.dumps({LANDMARK: Trap(canary)}, 5),
    "code-beside-weights": lambda canary: zoo(config=Trap(canary)),
    "code-eval": _evaluated,
    "code-getattr-chain": _getattr_chain,
    "code-in-a-shape": _nested_reduce,
    "code-stack-global": lambda canary: _stacked("os", "system", _touch(canary)),
    "code-inst": lambda canary: _in_model(b"(" + _touch(canary) + b"ios\nsystem\n"),
    "code-obj": lambda canary: _in_model(b"(cos\nsystem\n" + _touch(canary) + b"o"),
    "new-object": lambda canary: _in_model(b"cos\nsystem\n" + _touch(canary) + b"\x85\x81"),
    "name-with-dots": lambda _: _stacked("numpy", "ndarray.tofile", b"N"),
    "name-with-newline": lambda _: _stacked("numpy\n\x1b[2J", "dtype", b"N"),
    "name-of-odd-type": lambda _: _in_model(b"](NNeK\x01\x93"),
    "long-name": lambda _: _stacked("x" * 100_000, "y" * 100_000, b"N"),
    "numpy-load": lambda _: _in_model(_call(b"numpy\nload\n", _text("x.npy"))),
    "numpy-ufunc": lambda _: _in_model(b"cnumpy.core\n_ufunc_reconstruct\n)R"),
    "encode-to-rot13": lambda _: _in_model(
        b"c_codecs\nencode\n" + _text("a") + _text("rot13") + b"\x86R"
    ),
    "torch-tensor": lambda _: pickle.dumps(sound_state(), 2),
    "torch-storage": lambda _: _in_model(b"ctorch\nFloatStorage\n)R"),
    "counter": lambda _: pickle.dumps(Counter("abc"), 4),
    "set": lambda _: pickle.dumps({"model": {LANDMARK: {1, 2}}}, 4),
    "persistent-id": lambda _: b"\x80\x02" + _text("storage") + b"Q.",
    "persistent-id-as-text": lambda _: b"Pstorage\n.",
    "extension-code": lambda _: b"\x80\x02\x82\x01.",
    "buffer-out-of-band": lambda _: b"\x80\x05\x97.",
    "object-array": lambda _: pickle.dumps({LANDMARK: np.array([{}, None], object)}, 3),
    "text-array": lambda _: pickle.dumps({LANDMARK: np.array(["a"])}, 3),
    "record-array": lambda _: pickle.dumps({LANDMARK: np.zeros(2, "f4,i4")}, 3),
    "complex-array": lambda _: pickle.dumps({LANDMARK: np.zeros(2, complex)}, 3),
    "record-array-protocol-5": lambda _: pickle.dumps({LANDMARK: np.zeros(2, "f4,i4")}, 5),
    "huge-shape": lambda _: _in_model(
        _array(b"J" + struct.pack("<i", 2**31 - 1) + b"\x85", bytes(4))
    ),
    "huge-shape-of-longs": lambda _: _in_model(_array(b"\x8a\x20" + b"\x7f" * 32 + b"\x85", b"")),
    "negative-shape": lambda _: _in_model(_array(b"J\xff\xff\xff\xff\x85", bytes(4))),
    "shape-of-many-axes": lambda _: _in_model(_array(b"(" + b"K\x01" * 99 + b"t", bytes(4))),
    "shape-that-is-no-shape": lambda _: _in_model(_array(_text("4"), bytes(4))),
    "empty-array": lambda _: pickle.dumps({LANDMARK: np.zeros((0, 4), np.float32)}, 3),
    "array-never-filled": lambda _: _in_model(
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    ),
    "one-array-often": _one_array_often,
    "bytes-made-often": _aliased_arrays,
    "doubling-lists": _doubling,
    "memo-index": lambda _: b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b"j\xfe\xff\xff\x7f.",
    "memo-of-nothing": lambda _: b"\x80\x02q\x00.",
    "many-steps": lambda _: b"\x80\x02" + b"]0" * 600_000 + b"N.",
    "many-duplicates": lambda _: b"\x80\x02]" + b"2" * 1_200_000 + b".",
    "deep-lists": lambda _: b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "deep-tuples-as-a-key": lambda _: b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"Ns.",
    "deep-marks": lambda _: b"\x80\x02" + b"(" * 300_000 + b".",
    "length-beyond-the-file": lambda _: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc",
    "length-beyond-all": lambda _: b"\x80\x04\x8e" + b"\xff" * 8 + b"abc",
    "text-beyond-the-file": lambda _: b"\x80\x04\x8d" + struct.pack("<Q", 2**50) + b"abc",
    "negative-length": lambda _: b"\x80\x02T\xff\xff\xff\xff.",
    "number-of-a-million-digits": lambda _: b"I" + b"9" * 1_000_000 + b"\n.",
    "build-on-a-text": lambda _: _in_model(_text("a") + b"}b"),
    "build-on-a-list": lambda _: _in_model(b"]N\x86b"),
    "call-of-a-text": lambda _: _in_model(_text("os.system") + b")R"),
    "append-to-nothing": lambda _: b"\x80\x02Na.",
    "odd-items": lambda _: b"\x80\x02}(NNNu.",
    "pop-of-nothing": lambda _: b"\x80\x02000.",
    "bad-utf-8": lambda _: b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "unknown-protocol": lambda _: b"\x80\x63N.",
    "bad-frame": lambda _: b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "empty": lambda _: b"",
    "no-stop": lambda _: b"\x80\x02}",
    "only-stop": lambda _: b".",
    "random": lambda _: np.random.default_rng(3).bytes(5000),
    "web-page": lambda _: b"<!DOCTYPE html><html>404: Not Found</html>\n" * 9,
    "torch-archive": lambda _: b"PK\x03\x04" + bytes(64),
    "a-list": lambda _: pickle.dumps([1, 2]),
    "model-is-a-text": lambda _: pickle.dumps({"model": "mask r-cnn"}),
    "no-arrays": lambda _: pickle.dumps({"model": {"a": 1.5, "b\n": "x"}}),
    "integer-keys": lambda _: pickle.dumps({"model": {1: np.zeros(2, np.float32)}}, 3),
    "caffe2": lambda _: pickle.dumps({"blobs": {"conv1_w": np.zeros(2, np.float32)}}, 2),
    "caffe2-without-blobs": lambda _: pickle.dumps({"conv1_w": np.zeros(2, np.float32)}, 2),
    "nan": lambda _: pickle.dumps({"model": {LANDMARK: np.full(2, np.nan, np.float32)}}, 2),
    "another-network": lambda _: pickle.dumps({"model": {"a.b": np.zeros(2, np.float32)}}, 2),
}


def run(body: bytes) -> None:
    """Do what the ordinary unpickler does; after the call, most of these are no sound pickle."""
    with suppress(Exception):
        pickle.loads(body)


def save(folder: Path, kind: str) -> tuple[Path, Path]:
    """Write one; answer its path and the canary's."""
    path, canary = folder / f"{kind}.pkl", folder / "canary"
    path.write_bytes(PICKLES[kind](canary))
    return path, canary
