"""Open a network file with the backend of its suffix."""

from __future__ import annotations

from pathlib import Path

from model.errors import ArtifactError, UsageError, require_one_of
from model.spec_options import SpecOptions
from runtime.sessions.device import Device
from runtime.sessions.session import Session
from runtime.whole_numbers import require_threads

BACKENDS = ("onnxruntime", "onnxruntime-tensorrt", "tensorrt", "torch")
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
# Of PyTorch's files, whatever their names are: archives, pickles, and pickles before torch 1.6.
_TORCH_FILES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
CHECKPOINT_SUFFIXES = tuple(suffix for suffix, name in _SUFFIXES.items() if name == "torch")


def backend_of(path: Path) -> str | None:
    """The backend that opens a file: by its suffix, or PyTorch by its content; None for none.

    A checkpoint may have any name, such as Lightning's `.ckpt` or `.pth.tar`.
    """
    name = _SUFFIXES.get(path.suffix.lower())
    if name is None and path.is_file():
        with path.open("rb") as file:
            is_torch = file.read(4).startswith(_TORCH_FILES)
        name = "torch" if is_torch else None
    return name


def open_session(
    path: Path,
    backend: str | None = None,
    threads: int | None = None,
    sha256: str | None = None,
    runtime_cache: Path | None = None,
    device: str | None = None,
    options: SpecOptions | None = None,
    config: Path | None = None,
) -> Session:
    """Open a file with the named backend, or with that of its suffix.

    Args:
        path: the file.
        backend: one of `BACKENDS`, or None.
        threads: CPU threads; None takes the backend's own setting.
        sha256: expected hash of the file, or None.
        runtime_cache: kernel cache of a TensorRT-RTX engine.
        device: "cpu", "cuda" or "cuda:1"; None takes the GPU for engines and for ONNX Runtime's
            TensorRT provider, else the CPU.
        options: fields of the spec that a checkpoint does not hold.
        config: the framework's configuration of a checkpoint.

    Raises:
        ArtifactError: no such file, another hash, or a suffix that no backend opens.
        UsageError: an unknown backend or device, an option that does not fit the file, fewer than
            one thread or more than 1024.
    """
    if backend is not None:
        require_one_of("backend", backend, BACKENDS)
    if threads is not None:
        require_threads(threads)
    parsed = None if device is None else Device.parse(device)
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file; expected an exported .onnx, an .engine or a checkpoint"
        )
    name = backend or backend_of(path)
    if name is None:
        raise ArtifactError(
            f"{path}: no backend for '{path.suffix}' files; expected one of "
            f"{', '.join(_SUFFIXES)}, or name the backend ({', '.join(BACKENDS)})"
        )
    if name != "torch" and (config is not None or options not in (None, SpecOptions())):
        raise UsageError(f"{path}: contains its spec; options of the spec are for checkpoints")
    if name == "tensorrt":
        if threads is not None:
            raise UsageError(f"threads: {path} runs on the GPU; leave it out")
        gpu = _gpu(parsed, f"device: {path} runs on the GPU it was built for")
        from runtime.sessions.tensorrt import TensorRTSession

        return TensorRTSession(path, sha256, runtime_cache=runtime_cache, device_index=gpu.index)
    require_no_cache(path, runtime_cache)
    if name == "torch":
        from runtime.sessions.torch import TorchSession

        return TorchSession.open(
            path, threads, str(parsed or "cpu"), sha256=sha256, options=options, config=config
        )
    if name == "onnxruntime-tensorrt":
        parsed = _gpu(parsed, f"backend {name}: runs on a GPU")
    from runtime.sessions.onnxruntime import OnnxRuntimeSession

    has_tensorrt = name == "onnxruntime-tensorrt"
    return OnnxRuntimeSession(path, threads, parsed or Device("cpu"), has_tensorrt, sha256)


def open_module(
    model: object,
    backend: str | None,
    threads: int | None,
    device: str | None,
    options: SpecOptions | None = None,
) -> Session:
    """Open a live module, which runs in PyTorch.

    Raises:
        UsageError: another backend than "torch", or neither a path nor a module.
        ModelError: a part of the module that our network cannot run.
    """
    # Without PyTorch there is no module, and the runtime does not import it for the question.
    if not any(c.__module__ == "torch.nn.modules.module" for c in type(model).__mro__):
        raise UsageError(
            f"expected the path of a file or a torch.nn.Module, got {type(model).__name__}"
        )
    if backend not in (None, "torch"):
        raise UsageError(f"backend {backend}: a live module runs in 'torch'; leave it out")
    if threads is not None:
        require_threads(threads)
    parsed = "cpu" if device is None else str(Device.parse(device))
    from runtime.sessions.torch import TorchSession

    return TorchSession.of_module(model, threads, parsed, options=options)


def _gpu(device: Device | None, problem: str) -> Device:
    if device is not None and device.type == "cpu":
        raise UsageError(f"{problem}; pass cuda, or leave the device out")
    return device or Device("cuda")


def require_no_cache(path: Path, runtime_cache: Path | None) -> None:
    """Refuse a kernel cache for a file that compiles no kernels.

    Raises:
        UsageError: a cache was passed.
    """
    if runtime_cache is not None:
        raise UsageError(f"runtime_cache: {path} is not a TensorRT-RTX engine; leave it out")
