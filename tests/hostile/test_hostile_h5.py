"""Hostile and damaged `.h5` files: refused in one line, before anything is read from elsewhere."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import load
from model.errors import CheckpointError, MissingDependencyError
from tests.hostile import hdf5

h5py = pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
SAYS = {
    "external-link": "another file",
    "soft-link": "soft link",
    "broken-soft-link": "soft link",
    "external-storage": "values in other files",
    "virtual": "values in other files",
    "stored-nowhere": "0 are in the file",
    "bomb": "compressed",
    "objects": "floating point",
    "references": "floating point",
    "integers": "floating point",
    "compound": "floating point",
    "no-values": "shape None",
    "named-type": "neither a group nor an array",
    "cycle": "twice",
    "twice": "twice",
    "deep": "too deep",
    "not-finite": "NaN",
    "empty": "empty",
    "text": "HDF5",
    "signature-only": "HDF5",
    "weights-elsewhere": "another file",
    "weights-are-an-array": "no group",
    "no-arrays": "holds no arrays",
}


def _refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    assert len(line) < 600
    return line


@pytest.mark.parametrize("kind", [*hdf5.REPLACED, *hdf5.WHOLE])
def test_hostile_h5_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    hdf5.make(kind, path)
    peak, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    line = _refusal(path)
    assert SAYS[kind] in line
    assert time.perf_counter() - started < 5
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    assert grown_mb < 40
    if kind in hdf5.REPLACED and kind != "twice":  # that one is met under either name
        assert "conv1/conv1/kernel" in line


def test_the_traps_work(tmp_path: Path) -> None:
    """A link that HDF5 itself would not follow proves nothing, nor a bomb that does not swell."""
    for kind in ("external-link", "soft-link", "external-storage", "virtual"):
        path = tmp_path / f"{kind}.h5"
        hdf5.make(kind, path)
        with h5py.File(path) as file:
            assert file[hdf5.PLACE][()].size > 0, kind
    hdf5.make("bomb", tmp_path / "bomb.h5")
    with h5py.File(tmp_path / "bomb.h5") as file:
        assert file[hdf5.PLACE].nbytes > 20 * (tmp_path / "bomb.h5").stat().st_size


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    hdf5.sound(tmp_path / "weights.h5")
    assert load(tmp_path / "weights.h5").spec.dialect == "matterport"


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    hdf5.sound(path)
    whole = path.read_bytes()
    for size in np.linspace(1, len(whole) - 1, 20).astype(int):
        path.write_bytes(whole[:size])
        assert "truncated" in _refusal(path)


def test_damage_never_surprises(tmp_path: Path) -> None:
    """Whatever the bytes of the structure say: a checkpoint, or an error meant for people."""
    path = tmp_path / "weights.h5"
    hdf5.sound(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    said = []
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 40):
            damaged[at] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            load(path)
        except CheckpointError as error:
            said.append(str(error))
    assert len(said) > 20
    assert all("\n" not in line and line.isprintable() for line in said)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hdf5.sound(tmp_path / "weights.h5")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"maskport\[h5\]"):
        load(tmp_path / "weights.h5")
