"""`.h5` files that are not as Keras writes them: one line, and no other file is read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.checkpoint import load
from model.errors import CheckpointError, MissingDependencyError
from model.files.keras_h5 import H5Limits, read_keras_h5
from tests.keras_matterport import Widths, keras_path, random_weights, write_h5

h5py = pytest.importorskip("h5py", reason="needs h5py, of the extra h5")

# Every file but the last ones is a sound one with this array replaced.
REPLACED = "conv1/kernel"
SHAPE = (7, 7, 3, 8)
ZEROS = np.zeros(SHAPE, np.float32)


def sound(path: Path) -> None:
    write_h5(path, random_weights(Widths()))


def _other_file(path: Path) -> str:
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["kernel"] = ZEROS
    return "other.h5"


def _external_link(group: Any, name: str, path: Path) -> None:
    group[name] = h5py.ExternalLink(_other_file(path), "/kernel")


def _external_storage(group: Any, name: str, path: Path) -> None:
    raw = path.with_name("other.raw")
    raw.write_bytes(ZEROS.tobytes())
    group.create_dataset(name, SHAPE, np.float32, external=[(str(raw), 0, ZEROS.nbytes)])


def _virtual(group: Any, name: str, path: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.float32)
    layout[:] = h5py.VirtualSource(str(path.with_name(_other_file(path))), "kernel", SHAPE)
    group.create_virtual_dataset(name, layout)


def _dataset(*args: Any, **options: Any) -> Callable[[Any, str, Path], None]:
    return lambda group, name, _: group.create_dataset(name, *args, **options)


def _value(make: Callable[[Any], object]) -> Callable[[Any, str, Path], None]:
    def build(group: Any, name: str, _: Path) -> None:
        group[name] = make(group)

    return build


def _deep(group: Any, name: str, _: Path) -> None:
    """One level more than the limit."""
    group.create_dataset(name + "/a" * (H5Limits().depth - 1), data=ZEROS)


ARRAYS: dict[str, tuple[Callable[[Any, str, Path], None], str]] = {
    "external link": (_external_link, "another file"),
    "soft link": (_value(lambda _: h5py.SoftLink("/bn_conv1/bn_conv1/gamma:0")), "soft link"),
    "soft link to nothing": (_value(lambda _: h5py.SoftLink("/nowhere\n")), "soft link"),
    "external storage": (_external_storage, "values in other files"),
    "virtual": (_virtual, "values in other files"),
    "never written": (
        _dataset((3,), np.float32, chunks=(3,)),
        "claims 12 bytes; 0 are in the file",
    ),
    "compressed": (_dataset(data=np.zeros(8, np.float32), compression="gzip"), "compressed"),
    "objects": (_dataset((3,), h5py.string_dtype()), "floating point"),
    "references": (_dataset((3,), h5py.ref_dtype), "floating point"),
    "integers": (_value(lambda _: np.ones(SHAPE, np.int64)), "floating point"),
    "records": (_dataset((3,), np.dtype([("a", "f4"), ("b", "i4")])), "floating point"),
    "no values": (_value(lambda _: h5py.Empty("f4")), "shape None"),
    "no elements": (_value(lambda _: np.zeros((0, 3), np.float32)), "shape (0, 3)"),
    "too many sides": (_value(lambda _: np.ones((1,) * 9, np.float32)), "shape (1, 1"),
    "named type": (_value(lambda _: np.dtype("f4")), "neither a group nor an array"),
    "under two names": (_value(lambda group: group.file["bn_conv1/bn_conv1/gamma:0"]), "twice"),
    "too deep": (_deep, "too deeply"),
    "not finite": (_value(lambda _: np.full(SHAPE, np.nan, np.float32)), "NaN"),
}


def _weights_elsewhere(path: Path) -> None:
    _other_file(path)
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "/")


def _weights_are_an_array(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["model_weights"] = ZEROS


def _no_arrays(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("conv1/conv1")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("not HDF5 at all\n" * 100), "HDF5"),
    "signature only": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "HDF5"),
    "weights in another file": (_weights_elsewhere, "another file"),
    "weights are an array": (_weights_are_an_array, "no group"),
    "no arrays": (_no_arrays, "holds no arrays"),
}


def _refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    assert len(line) < 600
    return line


def test_only_plain_arrays_are_read(tmp_path: Path, subtests: pytest.Subtests) -> None:
    weights = random_weights(Widths())
    del weights[REPLACED]

    for name, (build, message) in ARRAYS.items():
        with subtests.test(name):
            path = tmp_path / "weights.h5"
            write_h5(path, weights)
            with h5py.File(path, "a") as file:
                group, _, key = keras_path(REPLACED).rpartition("/")
                build(file.require_group(group), key, path)
            line = _refusal(path)
            assert message in line
            if name != "under two names":  # refused under either
                assert "conv1/conv1/kernel" in line


def test_other_files_are_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, (write, message) in FILES.items():
        with subtests.test(name):
            write(tmp_path / "weights.h5")
            assert message in _refusal(tmp_path / "weights.h5")


def test_objects_and_levels_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["a/b/c"] = ZEROS
    assert list(read_keras_h5(path, H5Limits(objects=4, depth=3, dimensions=4))) == ["a/b/c"]
    for limits, reason in (
        (H5Limits(objects=3), "too many objects"),
        (H5Limits(depth=2), "too deeply"),
        (H5Limits(dimensions=3), "has shape"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            read_keras_h5(path, limits)


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    sound(path)
    whole = path.read_bytes()
    for size in np.linspace(1, len(whole) - 1, 20).astype(int):
        path.write_bytes(whole[:size])
        assert "truncated" in _refusal(path)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "weights.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"maskport\[h5\]"):
        load(tmp_path / "weights.h5")
