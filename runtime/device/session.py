"""The protocol of a session on device arrays, and how to open a file as one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from model.errors import ArtifactError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.sessions.device import Device
from runtime.sessions.open import CHECKPOINT_SUFFIXES, require_no_cache


class DeviceSession(Protocol):
    """An opened network that reads and writes device memory.

    `TensorRTSession` and `TorchSession` implement it. Inputs and outputs are those of
    `runtime.sessions.session.Session`.
    """

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest of the file."""

    def on_device(
        self, inputs: Mapping[str, Any], stream: int | None = None
    ) -> AbstractContextManager[Mapping[str, Any]]:
        """Run once on the stream, without a copy to the host or a wait.

        Work that the block enqueues on the stream may read the outputs; later work must not.
        """

    def close(self) -> None:
        """Free the session's resources."""


def open_device_session(
    path: Path,
    device: str = "cuda",
    sha256: str | None = None,
    runtime_cache: Path | None = None,
) -> DeviceSession:
    """Open an engine, or a checkpoint in PyTorch with static shapes.

    Args:
        path: an `.engine` or a checkpoint.
        device: "cuda" for the current GPU, "cuda:1", or, for a checkpoint, "cpu".
        sha256: expected hash of the file, or None.
        runtime_cache: kernel cache of a TensorRT-RTX engine.

    Raises:
        UsageError: a file that does not run on device arrays, or an unknown device.
        ArtifactError, CheckpointError, DeviceError, MissingDependencyError: see the sessions.
    """
    suffix, parsed = path.suffix.lower(), Device.parse(device)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected an .engine or a checkpoint")
    if suffix == ".engine":
        from runtime.sessions.tensorrt import TensorRTSession

        if parsed.type == "cpu":
            raise UsageError(f"device {device}: {path} is an engine for a GPU; give cuda")
        index = parsed.index if ":" in device else None
        return TensorRTSession(path, sha256, runtime_cache=runtime_cache, device_index=index)
    if suffix not in CHECKPOINT_SUFFIXES:
        raise UsageError(
            f"{path}: only .engine files and checkpoints ({', '.join(CHECKPOINT_SUFFIXES)}) take "
            "device arrays; run an .onnx with Predictor, or build an engine from it"
        )
    require_no_cache(path, runtime_cache)
    from runtime.sessions.torch import TorchSession

    return TorchSession.open(path, device=device, mode="static", sha256=sha256)
