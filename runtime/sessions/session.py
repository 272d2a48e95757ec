"""What a session is to the rest of the runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from model.errors import ArtifactError, UsageError
from runtime.artifact import Artifact

Feed = Mapping[str, npt.NDArray[Any]]
Answer = dict[str, npt.NDArray[Any]]


class Session(Protocol):
    """An opened network. `run` maps the graph's inputs to its outputs by name.

    The inputs are `images` float32 [N, 3, H, W] and `image_hw` float32 [N, 2]; see
    `model.mask_rcnn.Outputs` for the outputs.
    """

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest that came with the file."""

    def run(self, feed: Feed) -> Answer:
        """Run once; safe to call from several threads."""

    def close(self) -> None:
        """Free what the session holds."""


def open_session(
    path: Path,
    backend: str | None,
    threads: int | None,
    sha256: str | None = None,
    runtime_cache: Path | None = None,
) -> Session:
    """Open a file with the backend of that name, or the one that its suffix asks for.

    Args:
        path: the file.
        backend: one of `_BACKENDS`, or None.
        threads: of the CPU; None takes the backend's own setting.
        sha256: a hash that the file must have, or None.
        runtime_cache: of a TensorRT-RTX engine.

    Raises:
        ArtifactError: no such file, another hash, or a kind of file that no backend opens.
        UsageError: no backend of that name, or fewer than one thread.
    """
    if backend is not None and backend not in _BACKENDS:
        raise UsageError(f"backend: expected one of {', '.join(_BACKENDS)}, got '{backend}'")
    if threads is not None and threads < 1:
        raise UsageError(f"threads: expected at least 1, got {threads}")
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file; expected an exported .onnx, an .engine or a checkpoint"
        )
    name = backend or _SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise ArtifactError(
            f"{path}: no backend for '{path.suffix}' files; expected one of "
            f"{', '.join(_SUFFIXES)}, or name the backend ({', '.join(_BACKENDS)})"
        )
    if name == "tensorrt":
        return _tensorrt(path, threads, sha256, runtime_cache)
    if runtime_cache is not None:
        raise UsageError(f"runtime_cache: {path} is no TensorRT-RTX engine; leave it out")
    return _BACKENDS[name](path, threads, sha256)


def _require_hash(path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256.lower():
        raise ArtifactError(
            f"{path}: its SHA-256 {found[:16]}… is not the expected {sha256[:16]}…; not loaded"
        )


def _onnxruntime(path: Path, threads: int | None, sha256: str | None) -> Session:
    _require_hash(path, sha256)
    from runtime.sessions.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(path, threads)


def _torch(path: Path, threads: int | None, sha256: str | None) -> Session:
    _require_hash(path, sha256)
    from runtime.sessions.torch import TorchSession

    return TorchSession.open(path, threads)


def _tensorrt(
    path: Path, threads: int | None, sha256: str | None, runtime_cache: Path | None = None
) -> Session:
    if threads is not None:
        raise UsageError(f"threads: {path} runs on the GPU; leave it out")
    from runtime.sessions.tensorrt import TensorRTSession

    return TensorRTSession(path, sha256, runtime_cache=runtime_cache)


_BACKENDS: dict[str, Callable[[Path, int | None, str | None], Session]] = {
    "onnxruntime": _onnxruntime,
    "tensorrt": _tensorrt,
    "torch": _torch,
}
_SUFFIXES = {
    ".onnx": "onnxruntime",
    ".engine": "tensorrt",
    ".pth": "torch",
    ".pt": "torch",
    ".safetensors": "torch",
    ".pkl": "torch",
    ".h5": "torch",
    ".hdf5": "torch",
}

__all__ = ["Answer", "Feed", "Session", "open_session"]
