"""Hostile zoo files: one line, nothing executed, soon, in little memory."""

from __future__ import annotations

import pickle
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from export.onnx import main
from model.checkpoint import load
from model.errors import CheckpointError, MaskportError
from tests.hostile.pickles import PICKLES, run, save, zoo

SECONDS = 5
CODE = [kind for kind in PICKLES if kind.startswith("code-")]
# Sound pickles, refused for what is in them by those who read any checkpoint.
NOT_REFUSED_AS_PICKLES = {
    "empty-array", "array-never-filled", "no-arrays", "integer-keys", "nan", "another-network",
    "one-array-often", "doubling-lists", "empty",
}  # fmt: skip


@pytest.mark.parametrize("kind", PICKLES)
def test_hostile_pickle_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = save(tmp_path, kind)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    status = main([str(path)])
    out, err = capsys.readouterr()
    assert time.perf_counter() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024 < 150
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {path}: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 600
    assert list(tmp_path.iterdir()) == [path], "nothing written, the canary untouched"
    if kind not in NOT_REFUSED_AS_PICKLES:
        assert "detectron2" in err or ".pth" in err


@pytest.mark.parametrize("kind", CODE)
def test_the_traps_work(kind: str, tmp_path: Path) -> None:
    """A canary that nothing can touch would prove nothing."""
    path, canary = save(tmp_path, kind)
    run(path.read_bytes())
    assert canary.exists()


@pytest.mark.parametrize("kind", CODE)
def test_the_error_says_that_nothing_ran(kind: str, tmp_path: Path) -> None:
    path, _ = save(tmp_path, kind)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load(path)


@pytest.mark.parametrize("kind", ["caffe2", "caffe2-without-blobs"])
def test_a_caffe2_file_is_called_so(kind: str, tmp_path: Path) -> None:
    path, _ = save(tmp_path, kind)
    with pytest.raises(CheckpointError, match=r"Caffe2.*load it in detectron2"):
        load(path)


@pytest.mark.parametrize("protocol", range(6))
def test_a_sound_one_is_read(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(zoo(protocol))
    assert load(path).spec.num_foreground == 2


@pytest.mark.parametrize("protocol", [0, 2, 3, 5])
def test_truncated_anywhere(protocol: int, tmp_path: Path) -> None:
    path, whole = tmp_path / "model.pkl", zoo(protocol)
    for size in np.linspace(1, len(whole) - 1, 12).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="truncated"):
            load(path)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_damaged_pickles_never_surprise(protocol: int, tmp_path: Path) -> None:
    """Whatever the bytes say: a checkpoint, or an error that is meant for people."""
    small = {"model": {"a.b": np.ones(3, np.float32), "c.d": np.float64(2)}, "e": [1, {"f": None}]}
    path, whole = tmp_path / "model.pkl", pickle.dumps(small, protocol)
    rng = np.random.default_rng(protocol)
    said = []
    for _ in range(400):
        body = bytearray(whole)
        for at in rng.integers(0, len(body), rng.integers(1, 5)):
            body[at] = rng.integers(256)
        path.write_bytes(body)
        with pytest.raises(MaskportError) as caught:  # even the sound one is no Mask R-CNN
            load(path)
        said.append(str(caught.value))
    assert all(line.startswith(str(path)) and "\n" not in line for line in said)
    assert len(set(said)) > 20
