"""PyTorch, CuPy and NumPy: the operations that the array API leaves to each of them.

The rest of `runtime/device` uses the array API only, so that the same code runs on all three and
tests on CPU arrays also cover it on a GPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model.errors import MissingDependencyError, UsageError
from runtime.cuda.array_interface import DeviceArray

# An array of PyTorch, CuPy or NumPy, which share no base class.
Array = Any


class Library(Protocol):
    """The operations of one array library."""

    xp: Any  # array API namespace

    def handle(self, like: Array, stream: Any) -> int | None:
        """The CUDA handle of a stream; None means the current one. None on a CPU."""

    def on_stream(self, like: Array, handle: int | None) -> AbstractContextManager[Any]:
        """Run the block's work on this stream."""

    def upload(self, table: npt.NDArray[Any], like: Array) -> Array:
        """Copy a host table to the device of `like`, in stream order, without a wait."""

    def adopt(self, value: Any) -> Array:
        """Import another library's array of the same device, without a copy."""

    def download(self, value: Array) -> npt.NDArray[Any]:
        """Copy to the host; nothing else does."""


def library_of(value: Any) -> Library:
    """The library of a frame: its own, else PyTorch, else CuPy.

    Raises:
        UsageError: not a device array.
        MissingDependencyError: array-api-compat, or both PyTorch and CuPy, are not installed.
    """
    try:
        import array_api_compat as compat
    except ImportError as error:
        raise MissingDependencyError(
            "frames on a device need array-api-compat; pip install 'maskport[device]'"
        ) from error
    if compat.is_numpy_array(value):
        return _NumPy()
    if compat.is_torch_array(value):
        return _Torch()
    if compat.is_cupy_array(value):
        return _CuPy()
    if not hasattr(value, "__dlpack__") and not hasattr(value, "__cuda_array_interface__"):
        raise UsageError(
            "frames: expected device arrays (with __dlpack__ or __cuda_array_interface__), got "
            f"{type(value).__name__}; pass photos and files to Predictor"
        )
    for library in (_Torch, _CuPy):
        try:
            return library()
        except ImportError:
            continue
    raise MissingDependencyError(
        f"frames of {type(value).__module__} need PyTorch or CuPy, and neither is installed; pip "
        "install one of them"
    )


def clipped(xp: Any, values: Array, low: float | None = None, high: float | None = None) -> Array:
    """`xp.clip` with scalars, without the mask index that makes CuPy's wait for the GPU."""
    if low is not None:
        values = xp.where(values < low, xp.full_like(values, low), values)
    if high is not None:
        values = xp.where(values > high, xp.full_like(values, high), values)
    return values


def zero_unless(xp: Any, valid: Array, values: Array) -> Array:
    """A copy of `values` [N, D, ...] with zeros in the rows that are not `valid`, bool [N, D]."""
    where = xp.reshape(valid, (*valid.shape, *(1,) * (len(values.shape) - 2)))
    return xp.where(where, values, xp.zeros_like(values))


def count_rows(xp: Any, rows: Array) -> Array:
    """Number of true rows of each frame, int32 [N]."""
    return xp.sum(xp.astype(rows, xp.int32), axis=1, dtype=xp.int32)


def stream_handle(stream: Any) -> int:
    """The CUDA handle of a stream.

    Args:
        stream: an integer, or a stream of PyTorch, CuPy or any library with `__cuda_stream__`.

    Raises:
        UsageError: anything else.
    """
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):
        stream = getattr(stream, name, stream)
    if isinstance(stream, bool) or not isinstance(stream, int):
        raise UsageError(f"stream: expected a CUDA stream, got {type(stream).__name__}")
    return stream


def _require_no_stream(stream: Any) -> None:
    if stream is not None:
        raise UsageError("stream: the frames are on the CPU, which has no streams; leave it out")


class _NumPy:
    """Host arrays: for tests and for machines without a GPU."""

    def __init__(self) -> None:
        import array_api_compat.numpy as xp

        self.xp: Any = xp

    def handle(self, like: Array, stream: Any) -> int | None:
        _require_no_stream(stream)
        return None

    def on_stream(self, like: Array, handle: int | None) -> AbstractContextManager[Any]:
        return nullcontext()

    def upload(self, table: npt.NDArray[Any], like: Array) -> Array:
        return table

    def adopt(self, value: Any) -> Array:
        return value if isinstance(value, np.ndarray) else np.from_dlpack(value)

    def download(self, value: Array) -> npt.NDArray[Any]:
        return np.array(value)


class _Torch:
    def __init__(self) -> None:
        import array_api_compat.torch as xp
        import torch

        self.xp: Any = xp
        self._torch = torch

    def handle(self, like: Array, stream: Any) -> int | None:
        if not like.is_cuda:
            _require_no_stream(stream)
            return None
        if stream is None:
            return int(self._torch.cuda.current_stream(like.device).cuda_stream)
        return stream_handle(stream)

    def on_stream(self, like: Array, handle: int | None) -> AbstractContextManager[Any]:
        cuda: Any = self._torch.cuda
        if handle is None:
            return nullcontext()
        stream: AbstractContextManager[Any] = (
            cuda.device(like.device)
            if handle == cuda.current_stream(like.device).cuda_stream
            else cuda.stream(cuda.ExternalStream(handle, device=like.device))
        )
        return stream

    def upload(self, table: npt.NDArray[Any], like: Array) -> Array:
        host = self._torch.from_numpy(table)
        if not like.is_cuda:
            return host
        # A copy from pageable memory waits. PyTorch holds pinned memory until the copy is done.
        return host.pin_memory().to(like.device, non_blocking=True)

    def adopt(self, value: Any) -> Array:
        if isinstance(value, self._torch.Tensor):
            return value
        if isinstance(value, DeviceArray):
            # Its stream is the current one.
            return self._torch.as_tensor(replace(value, stream=None), device="cuda")
        if hasattr(value, "__dlpack__"):
            return self.xp.from_dlpack(value)
        return self._torch.as_tensor(value, device="cuda")

    def download(self, value: Array) -> npt.NDArray[Any]:
        return np.array(value.detach().cpu().numpy())


class _CuPy:
    def __init__(self) -> None:
        import array_api_compat.cupy as xp
        import cupy

        self.xp: Any = xp
        self._cupy: Any = cupy

    def handle(self, like: Array, stream: Any) -> int | None:
        if stream is None:
            return int(self._cupy.cuda.get_current_stream().ptr)
        return stream_handle(stream)

    def on_stream(self, like: Array, handle: int | None) -> AbstractContextManager[Any]:
        stream: AbstractContextManager[Any] = self._cupy.cuda.ExternalStream(handle)
        return stream

    def upload(self, table: npt.NDArray[Any], like: Array) -> Array:
        with like.device:
            return self._cupy.asarray(table, blocking=False)

    def adopt(self, value: Any) -> Array:
        if isinstance(value, DeviceArray):
            return self._cupy.asarray(replace(value, stream=None))
        if isinstance(value, self._cupy.ndarray) or not hasattr(value, "__dlpack__"):
            return self._cupy.asarray(value)
        return self._cupy.from_dlpack(value)

    def download(self, value: Array) -> npt.NDArray[Any]:
        return np.asarray(self._cupy.asnumpy(value))
