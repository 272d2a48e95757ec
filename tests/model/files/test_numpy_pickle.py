from __future__ import annotations

import inspect
import pickle
import pickletools
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from model.errors import CheckpointError
from model.files.numpy_pickle import read_pickle
from model.files.pickled_array import Allowance, PickledArray, RefusedError, as_bytes, shown
from model.files.weights_file import read_weights
from model.files.zoo_pickle import read_zoo_pickle

PROTOCOLS = range(6)
DTYPES = ["f2", "f4", "f8", ">f4", "i1", "u1", "<i2", ">i4", "i8", "u2", "u4", "u8", "?"]


def _saved(folder: Path, value: object, protocol: int = 3) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_is_what_the_unpickler_makes_of_it(protocol: int, tmp_path: Path) -> None:
    shared = ["twice"]
    value = {
        "model": {"a": (1, -2, 300, 70_000, 2**40, -(2**70)), "b": [], "c": ()},
        "floats": [0.1, -1e300, float("inf")],
        "texts": ["", "é\n\\u", "x" * 300, "日本"],
        "bytes": [b"", b"\x00\xff\n", b"y" * 300],
        "more": [None, True, False, {}, {"": {7: "seven", 1.5: None, None: 0, b"k": 1}}],
        "shared": [shared, shared],
        "long tuple": tuple(range(9)),
        "ordered": OrderedDict(a=1, b=2),
    }
    read = read_pickle(_saved(tmp_path, value, protocol))
    assert read == value
    assert isinstance(read, dict)
    assert read["shared"][0] is read["shared"][1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_scalars_of_every_number_type(protocol: int, tmp_path: Path) -> None:
    for dtype in DTYPES:
        values = np.random.default_rng(0).integers(0, 100, (3, 4, 2)).astype(dtype)
        arrays = {
            "a.c": values,
            "a.fortran": np.asfortranarray(values),
            "a.cut": values[::2, 1:, :1],
            "a.none": values[:0],
            "a.one": values[0, 0, :1],
            "a.scalar": np.array(3, dtype),
        }
        read = read_zoo_pickle(_saved(tmp_path, arrays, protocol))
        assert list(read) == list(arrays)
        for name, expected in arrays.items():
            np.testing.assert_array_equal(read[name], expected)
            assert read[name].dtype == expected.dtype.newbyteorder("=")
            assert read[name].flags.writeable
        number = np.array([3], dtype)[0]
        (scalar,) = read_pickle(_saved(tmp_path, [number], protocol))  # type: ignore[misc]
        assert scalar == number.item()
        assert type(scalar) is type(number.item())


def test_files_of_numpy_1_and_python_2(tmp_path: Path) -> None:
    path = _saved(tmp_path, {"a.b": np.arange(4.0)}, 2)
    body = path.read_bytes()
    old, new = b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"
    for module in (old, new):
        path.write_bytes(body.replace(new, module).replace(old, module))
        np.testing.assert_array_equal(read_zoo_pickle(path)["a.b"], np.arange(4.0))
    # Its strings are bytes, written as Latin-1 letters.
    path = _saved(tmp_path, {"a.b": np.arange(4, dtype=np.float32)}, 3)
    body = path.read_bytes()
    assert b"C\x10" in body
    path.write_bytes(body.replace(b"C\x10", b"U\x10"))  # bytes in 3 become a str of 2
    np.testing.assert_array_equal(read_zoo_pickle(path)["a.b"], np.arange(4))


def test_the_layout_of_the_zoo(tmp_path: Path) -> None:
    model = {"a.b": np.ones(2, np.float32), "note": "text"}
    whole = {"model": model, "__author__": "someone", "matching_heuristics": True}
    for content in (whole, {"model": model}, model):
        path = _saved(tmp_path, content)
        assert list(read_zoo_pickle(path)) == list(read_weights(path).tensors) == ["a.b"]


@pytest.mark.parametrize("name", ["stem.conv1.weight", "res2.0.conv1.weight"])
def test_name_suffixes_are_not_matched(name: str, tmp_path: Path) -> None:
    """Only with "matching_heuristics"; complete names may begin in any way."""
    content = {"model": {name: np.ones(2, np.float32)}, "matching_heuristics": True}
    with pytest.raises(CheckpointError, match=rf"'{name}' are only suffixes .*not matched"):
        read_weights(_saved(tmp_path, content))
    assert list(read_weights(_saved(tmp_path, {**content, "matching_heuristics": False})).tensors)


def test_opcodes_and_bytes_are_limited(tmp_path: Path) -> None:
    path = _saved(tmp_path, [1, 2, 3])
    count = len(list(pickletools.genops(path.read_bytes())))
    assert read_pickle(path, max_opcodes=count) == [1, 2, 3]
    with pytest.raises(CheckpointError, match=f"more than {count - 1} opcodes"):
        read_pickle(path, max_opcodes=count - 1)
    allowance = Allowance(8)
    assert as_bytes("12345678", allowance) == b"12345678"
    with pytest.raises(RefusedError, match="more bytes than the file"):
        as_bytes("1", allowance)
    array = np.zeros(500, np.float32)
    path = _saved(tmp_path, {f"a.{i}": array for i in range(9)})
    with pytest.raises(CheckpointError, match="claim"):
        read_weights(path)


def test_nested_lists_are_read_without_recursion(tmp_path: Path) -> None:
    value: list[object] = []
    for _ in range(200):
        value = [value]
    path, limit = _saved(tmp_path, value), sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 50)
    try:
        read = read_pickle(path)
    finally:
        sys.setrecursionlimit(limit)
    assert read == value


def test_an_array_in_a_list_stays_where_it_is(tmp_path: Path) -> None:
    (array,) = read_pickle(_saved(tmp_path, [np.arange(3)]))  # type: ignore[misc]
    assert isinstance(array, PickledArray)
    np.testing.assert_array_equal(array.values, np.arange(3))
    given = {"a.half": np.float16([1.5]), "a.double": np.float64([0.1])}
    tensors = read_weights(_saved(tmp_path, given)).tensors
    assert all(t.dtype.is_floating_point and t.element_size() == 4 for t in tensors.values())
    np.testing.assert_array_equal(tensors["a.double"].numpy(), np.float32([0.1]))
    # A repr has no bound.
    assert shown("a" * 61) == repr("a" * 60)
    assert shown([[]]) == "type list"
