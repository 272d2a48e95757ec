"""Open a network file with the backend of its suffix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.errors import ArtifactError, UsageError
from runtime.sessions.device import Device
from runtime.sessions.file_hash import require_hash
from runtime.sessions.session import Session
from runtime.whole_numbers import require_threads


@dataclass(frozen=True, slots=True)
class Opening:
    """Options for opening a file; see `runtime.predictor.Predictor.open`.

    Attributes:
        threads: CPU threads; None takes the backend's own setting.
        sha256: expected hash of the file, or None.
        runtime_cache: kernel cache of a TensorRT-RTX engine.
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
    """Open a file with the named backend, or with that of its suffix.

    Args:
        path: the file.
        backend: one of `BACKENDS`, or None.
        threads: see `Opening`, also for the next two.
        sha256: see there.
        runtime_cache: see there.
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        ArtifactError: no such file, another hash, or a suffix that no backend opens.
        UsageError: an unknown backend or device, an option that does not fit the file, fewer than
            one thread or more than 1024.
    """
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"backend: expected one of {', '.join(BACKENDS)}, got '{backend}'")
    if threads is not None:
        require_threads(threads)
    parsed = None if device is None else Device.parse(device)
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
    return _OPENERS[name](path, Opening(threads, sha256, runtime_cache, parsed))


def require_no_cache(path: Path, runtime_cache: Path | None) -> None:
    """Refuse a kernel cache for a file that compiles no kernels.

    Raises:
        UsageError: a cache was passed.
    """
    if runtime_cache is not None:
        raise UsageError(f"runtime_cache: {path} is not a TensorRT-RTX engine; leave it out")


def _onnxruntime(path: Path, options: Opening) -> Session:
    from runtime.sessions.onnxruntime import OnnxRuntimeSession

    device = options.device or Device("cpu")
    return OnnxRuntimeSession(path, options.threads, device, sha256=options.sha256)


def _onnxruntime_tensorrt(path: Path, options: Opening) -> Session:
    from runtime.sessions.onnxruntime import OnnxRuntimeSession

    device = options.device or Device("cuda")
    if device.type == "cpu":
        raise UsageError("backend onnxruntime-tensorrt: runs on a GPU; pass cuda, or leave it out")
    return OnnxRuntimeSession(path, options.threads, device, tensorrt=True, sha256=options.sha256)


def _torch(path: Path, options: Opening) -> Session:
    require_hash(path, options.sha256)
    from runtime.sessions.torch import TorchSession

    return TorchSession.open(path, options.threads, str(options.device or "cpu"))


def _tensorrt(path: Path, options: Opening) -> Session:
    if options.threads is not None:
        raise UsageError(f"threads: {path} runs on the GPU; leave it out")
    device = options.device or Device("cuda")
    if device.type == "cpu":
        raise UsageError(f"device: {path} runs on the GPU it was built for; pass cuda, or nothing")
    from runtime.sessions.tensorrt import TensorRTSession

    return TensorRTSession(
        path, options.sha256, runtime_cache=options.runtime_cache, device_index=device.index
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
CHECKPOINT_SUFFIXES = tuple(suffix for suffix, name in _SUFFIXES.items() if name == "torch")
