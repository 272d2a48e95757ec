"""What a session is to the rest of the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from model.errors import ArtifactError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.sessions.device import Device
from runtime.whole_numbers import require_threads

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


@dataclass(frozen=True, slots=True)
class Opening:
    """How a file is to be opened; see `runtime.predictor.Predictor.open`.

    Attributes:
        threads: of the CPU; None takes the backend's own setting.
        sha256: a hash that the file must have, or None.
        runtime_cache: of a TensorRT-RTX engine.
        device: None takes the backend's own: the GPU for engines and for ONNX Runtime's TensorRT
            provider, else the CPU.
    """

    threads: int | None = None
    sha256: str | None = None
    runtime_cache: Path | None = None
    device: Device | None = None


def open_session(
    path: Path,
    backend: str | None = None,
    threads: int | None = None,
    sha256: str | None = None,
    runtime_cache: Path | None = None,
    device: str | None = None,
) -> Session:
    """Open a file with the backend of that name, or the one that its suffix asks for.

    Args:
        path: the file.
        backend: one of `BACKENDS`, or None.
        threads: see `Opening`, as of the others.
        sha256: see there.
        runtime_cache: see there.
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        ArtifactError: no such file, another hash, or a kind of file that no backend opens.
        UsageError: no backend or device of that name, one that cannot go with the file, fewer
            than one thread or more than 1024.
    """
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"backend: expected one of {', '.join(BACKENDS)}, got '{backend}'")
    if threads is not None:
        require_threads(threads)
    place = None if device is None else Device.parse(device)
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file; expected an exported .onnx, an .engine or a checkpoint"
        )
    name = backend or _SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise ArtifactError(
            f"{path}: no backend for '{path.suffix}' files; expected one of "
            f"{', '.join(_SUFFIXES)}, or name the backend ({', '.join(BACKENDS)})"
        )
    if name != "tensorrt":
        require_no_cache(path, runtime_cache)
    return _OPENERS[name](path, Opening(threads, sha256, runtime_cache, place))


def require_no_cache(path: Path, runtime_cache: Path | None) -> None:
    """Refuse to keep kernels for a file that compiles none.

    Raises:
        UsageError: a cache was given.
    """
    if runtime_cache is not None:
        raise UsageError(f"runtime_cache: {path} is no TensorRT-RTX engine; leave it out")


def require_hash(path: Path, sha256: str | None) -> None:
    """Refuse a file of another SHA-256 (hexadecimal); None asks nothing.

    Raises:
        ArtifactError: its hash is another one.
    """
    if sha256 is None:
        return
    import hashlib

    with path.open("rb") as stream:
        _compare_hash(path, hashlib.file_digest(stream, "sha256").hexdigest(), sha256)


def _read_hashed(path: Path, sha256: str | None) -> bytes | None:
    """The bytes that have the hash; None where nothing is asked, and the path will do.

    Read once: between two readings a file could be exchanged.
    """
    if sha256 is None:
        return None
    import hashlib

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    _compare_hash(path, hashlib.sha256(content).hexdigest(), sha256)
    return content


def _compare_hash(path: Path, found: str, sha256: str) -> None:
    if found != sha256.lower():
        raise ArtifactError(
            f"{path}: its SHA-256 {found[:16]}… is not the expected {sha256[:16]}…; not loaded"
        )


def _onnxruntime(path: Path, how: Opening) -> Session:
    from runtime.sessions.onnxruntime import OnnxRuntimeSession

    content = _read_hashed(path, how.sha256)
    return OnnxRuntimeSession(path, how.threads, how.device or Device("cpu"), content=content)


def _onnxruntime_tensorrt(path: Path, how: Opening) -> Session:
    from runtime.sessions.onnxruntime import OnnxRuntimeSession

    content = _read_hashed(path, how.sha256)
    device = how.device or Device("cuda")
    if device.kind == "cpu":
        raise UsageError("backend onnxruntime-tensorrt: runs on a GPU; say device cuda, or none")
    return OnnxRuntimeSession(path, how.threads, device, tensorrt=True, content=content)


def _torch(path: Path, how: Opening) -> Session:
    require_hash(path, how.sha256)
    from runtime.sessions.torch import TorchSession

    return TorchSession.open(path, how.threads, str(how.device or "cpu"))


def _tensorrt(path: Path, how: Opening) -> Session:
    if how.threads is not None:
        raise UsageError(f"threads: {path} runs on the GPU; leave it out")
    device = how.device or Device("cuda")
    if device.kind == "cpu":
        raise UsageError(f"device: {path} runs on the GPU it was built for; say cuda, or none")
    from runtime.sessions.tensorrt import TensorRTSession

    return TensorRTSession(
        path, how.sha256, runtime_cache=how.runtime_cache, device_index=device.index
    )


_OPENERS: dict[str, Callable[[Path, Opening], Session]] = {
    "onnxruntime": _onnxruntime,
    "onnxruntime-tensorrt": _onnxruntime_tensorrt,
    "tensorrt": _tensorrt,
    "torch": _torch,
}
BACKENDS = tuple(_OPENERS)
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
CHECKPOINTS = tuple(suffix for suffix, name in _SUFFIXES.items() if name == "torch")

__all__ = ["BACKENDS", "CHECKPOINTS", "Answer", "Feed", "Opening", "Session", "open_session"]
