"""What a session on a device is to the rest of the runtime, and how a file is opened as one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from model.errors import ArtifactError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.sessions.device import Device
from runtime.sessions.session import CHECKPOINTS, require_hash, require_no_cache


class DeviceSession(Protocol):
    """An opened network that reads and writes device memory.

    `TensorRTSession` and `TorchSession` are two. The inputs and outputs are those of
    `runtime.sessions.session.Session`.
    """

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest that came with the file."""

    def on_device(
        self, feed: Mapping[str, Any], stream: int | None = None
    ) -> AbstractContextManager[Mapping[str, Any]]:
        """Run once on the stream; nothing is copied to the host, or awaited.

        The answer may be read by what the block gives the stream, not by later work.
        """

    def close(self) -> None:
        """Free what the session holds."""


def open_device_session(
    path: Path,
    device: str = "cuda",
    sha256: str | None = None,
    runtime_cache: Path | None = None,
) -> DeviceSession:
    """Open an engine, or a checkpoint in PyTorch with static shapes.

    Args:
        path: `.engine`, or a checkpoint.
        device: "cuda", which is the current GPU, "cuda:1", or, for a checkpoint, "cpu".
        sha256: a hash that the file must have, or None.
        runtime_cache: of a TensorRT-RTX engine.

    Raises:
        UsageError: a kind of file that does not run on device arrays, or no device of that name.
        ArtifactError, CheckpointError, DeviceError, MissingDependencyError: see the sessions.
    """
    suffix, place = path.suffix.lower(), Device.parse(device)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected an .engine or a checkpoint")
    if suffix == ".engine":
        from runtime.sessions.tensorrt import TensorRTSession

        if place.kind == "cpu":
            raise UsageError(f"device {device}: {path} is an engine, which runs on a GPU")
        index = place.index if ":" in device else None
        return TensorRTSession(path, sha256, runtime_cache=runtime_cache, device_index=index)
    if suffix not in CHECKPOINTS:
        raise UsageError(
            f"{path}: device arrays go into .engine files and checkpoints "
            f"({', '.join(CHECKPOINTS)}); an .onnx runs through Predictor, or build an engine of it"
        )
    require_no_cache(path, runtime_cache)
    from runtime.sessions.torch import TorchSession

    require_hash(path, sha256)
    return TorchSession.open(path, device=device, mode="static")
