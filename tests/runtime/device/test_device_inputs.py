"""Refused frames, streams and files, and the choice of library and GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import MissingDependencyError, UsageError
from runtime.device import library as device_library
from runtime.device.frames import read_frames
from runtime.device.library import library_of, stream_handle
from runtime.device.predictor import open_device_session
from tests.runtime.raising import raising


class Unwilling:
    """An array of an unknown library that does not export its memory."""

    def __dlpack__(self, **_: object) -> object:
        raise BufferError("not today")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def test_frames_that_no_library_can_compute_with(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"frames: .* memory of Unwilling .not today"):
        read_frames(Unwilling(), "hwc")
    for name in ("_Torch", "_CuPy"):
        monkeypatch.setattr(device_library, name, raising(ImportError()))
    with pytest.raises(MissingDependencyError, match="neither is installed"):
        library_of(Unwilling())


@pytest.mark.parametrize("value", ["0", True, None, 1.5], ids=repr)
def test_objects_that_are_not_streams(value: object) -> None:
    with pytest.raises(UsageError, match="stream: expected a CUDA stream, got"):
        stream_handle(value)


def test_device_files_opened_the_wrong_way(tmp_path: Path) -> None:
    engine, weights = tmp_path / "a.engine", tmp_path / "a.pth"
    engine.write_bytes(b"")
    weights.write_bytes(b"")
    with pytest.raises(UsageError, match=r"device cpu: .*a\.engine is an engine"):
        open_device_session(engine, "cpu")
    with pytest.raises(UsageError, match=r"runtime_cache: .*a\.pth is not a TensorRT-RTX engine"):
        open_device_session(weights, "cpu", runtime_cache=tmp_path / "cache")
    for path in (engine, weights):
        with pytest.raises(UsageError, match="device: expected cpu, cuda or cuda:N, got 'mps'"):
            open_device_session(path, "mps")


@pytest.mark.parametrize(("device", "index"), [("cuda", None), ("cuda:0", 0), ("cuda:1", 1)])
def test_an_engine_runs_on_the_gpu_that_is_named(
    device: str, index: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = tmp_path / "a.engine", {}
    path.write_bytes(b"")
    monkeypatch.setattr(
        "runtime.sessions.tensorrt.TensorRTSession", lambda *_, **named: options.update(named)
    )
    open_device_session(path, device)
    assert options["device_index"] == index
