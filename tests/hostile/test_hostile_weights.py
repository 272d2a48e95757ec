"""Hostile weights: one line, status 1, nothing executed, nothing written, soon."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from export.onnx import main
from model.checkpoint import load
from model.errors import CheckpointError, MaskportError
from tests.hostile import checkpoints
from tests.hostile.canary import (
    HOSTILE,
    HOSTILE_SAFETENSORS,
    LANDMARK,
    STATE_DICT_LINE,
    make,
    sound_state,
)

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20
# In a state dict with one bad tensor, the message must name it.
NAMES_THE_TENSOR = {
    "nan",
    "overflowed-half",
    "integers",
    "booleans",
    "complex",
    "sparse",
    "sparse-csr",
    "meta",
    "quantised",
    "no-elements",
    "scalar",
}


def _refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command on a bad file; answer its one line."""
    before = sorted(path.parent.iterdir())
    started = time.perf_counter()
    status = main([str(path)])
    out, err = capsys.readouterr()
    assert status == 1, err
    assert out == ""
    assert err.startswith(f"error: {path}: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 1100
    assert sorted(path.parent.iterdir()) == before, "nothing written, the canary untouched"
    assert time.perf_counter() - started < SECONDS
    return err


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pth_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{kind}.pth"
    make(kind, path, tmp_path / "canary")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = _refused(path, capsys)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    assert grown_mb < 300
    if kind.startswith(("whole-model", "code")):
        assert STATE_DICT_LINE in line
    if kind in NAMES_THE_TENSOR:
        assert f"'{LANDMARK}'" in line


@pytest.mark.parametrize("kind", HOSTILE_SAFETENSORS)
def test_hostile_safetensors_are_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{kind}.safetensors"
    path.write_bytes(HOSTILE_SAFETENSORS[kind])
    _refused(path, capsys)


def test_the_trap_works(tmp_path: Path) -> None:
    """A canary that nothing can touch would prove nothing."""
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    make("code", path, canary)
    torch.load(path, weights_only=False)
    assert canary.exists()


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


def test_damaged_pickles_never_surprise(tmp_path: Path) -> None:
    """Whatever the bytes say: a checkpoint, or an error that is meant for people."""
    source, path = tmp_path / "sound.pth", tmp_path / "damaged.pth"
    torch.save(sound_state(), source)
    with zipfile.ZipFile(source) as archive:
        content = {e.filename: archive.read(e) for e in archive.infolist()}
    rng = np.random.default_rng(0)
    said = []
    for _ in range(100):
        damaged = dict(content)
        body = bytearray(damaged["sound/data.pkl"])
        for at in rng.integers(0, len(body), rng.integers(1, 4)):
            body[at] = rng.integers(256)
        damaged["sound/data.pkl"] = bytes(body)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in damaged.items():
                archive.writestr(name, data)
        try:
            load(path)
        except MaskportError as error:
            said.append(str(error))
    assert len(said) >= 50
    assert all(line.startswith(str(path)) for line in said)


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("create", "says"),
    [
        pytest.param(_folder, "a folder", id="folder"),
        pytest.param(os.mkfifo, "a pipe", id="pipe"),
        pytest.param(_loop, "symbolic links", id="loop"),
        pytest.param(_dangling, "no such file", id="dangling-link"),
        pytest.param(lambda path: None, "no such file", id="absent"),
    ],
)
@pytest.mark.timeout(SECONDS)
def test_no_file_at_all(
    create: object, says: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"weights{suffix}"
    assert callable(create)
    create(path)
    assert says in _refused(path, capsys)


@pytest.mark.parametrize("name", ["x" * 300 + ".pth", "missing/weights.pth", "/dev/null"])
def test_no_file_at_that_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / name}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pth"
    torch.save(sound_state(), path)
    path.chmod(0)
    assert "Permission denied" in _refused(path, capsys)


@pytest.mark.parametrize("kind", ["code", "whole-model", "torchscript", "name-with-newline"])
def test_the_command_itself(kind: str, tmp_path: Path) -> None:
    """As users run it: no warning of a library beside the line, no traceback."""
    path = tmp_path / "weights.pth"
    make(kind, path, tmp_path / "canary")
    command = [sys.executable, "-m", "export.onnx", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


BOMBS = (
    "code", "zip-bomb", "absurd-sizes", "absurd-storage", "expanded", "swollen-values",
    "tower-of-pairs", "tower-of-pairs-legacy-file", "high-tower", "header-of-100-MB",
    "huge-shape", "bomb", "stored-nowhere", "doubling-lists",
)  # fmt: skip


def test_no_bomb_takes_the_time_or_the_memory_of_a_child() -> None:
    """Some of many; `make soak` tries all, of every kind of file."""
    known = checkpoints.kinds()
    assert len(known) >= 30
    chosen = [number for number, (_, kind) in enumerate(known) if kind in BOMBS]
    outcomes = dict(checkpoints.run(chosen))
    assert set(outcomes.values()) == {checkpoints.REFUSED}, outcomes
    assert len(outcomes) >= len(BOMBS) - 1
