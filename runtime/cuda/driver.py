"""Memory, streams and graphs of the CUDA runtime, through cuda-python; no torch.

Addresses, streams and graphs are plain integers here, as TensorRT takes them.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model.errors import DeviceError, MissingDependencyError


class Cuda(Protocol):
    """What the engine sessions need of a GPU; `CudaRuntime` is the real one."""

    def architecture(self) -> str:
        """Of the current GPU, like "sm89"."""

    def make_current(self) -> None:
        """Choose this GPU for the calling thread; threads begin with the first one."""

    def allocate(self, size_bytes: int) -> int:
        """Device memory."""

    def free(self, address: int) -> None:
        """Give device memory back."""

    def allocate_pinned(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        """Host memory that copies run asynchronously from and to."""

    def free_pinned(self, memory: npt.NDArray[np.uint8]) -> None:
        """Give pinned memory back; the array must not be used again."""

    def create_stream(self) -> int:
        """A stream of its own, never the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""

    def synchronize(self, stream: int) -> None:
        """Wait for all work of a stream."""

    def wait_for(self, stream: int, other: int) -> None:
        """Let later work of `stream` wait for what `other` has been given so far."""

    def record(self, stream: int) -> int:
        """An event: what `stream` has been given so far; it outlives the stream."""

    def wait_for_event(self, stream: int, event: int) -> None:
        """Let later work of `stream` wait for an event."""

    def destroy_event(self, event: int) -> None:
        """Give an event back; who waits for it already goes on waiting."""

    def upload(self, address: int, memory: npt.NDArray[np.uint8], stream: int) -> None:
        """Copy pinned host memory to the device, in stream order."""

    def download(self, memory: npt.NDArray[np.uint8], address: int, stream: int) -> None:
        """Copy device memory to pinned host memory, in stream order."""

    def begin_capture(self, stream: int) -> None:
        """Record the stream's work from here on instead of doing it."""

    def end_capture(self, stream: int) -> int:
        """An executable graph of what was recorded."""

    def launch(self, graph: int, stream: int) -> None:
        """Replay a graph."""

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""


class CudaRuntime:
    """The CUDA runtime of one device.

    Args:
        device_index: which; it becomes the calling thread's. None takes the current one.

    Raises:
        MissingDependencyError: cuda-python is not installed.
        DeviceError: no driver, no GPU, or a call failed.
    """

    def __init__(self, device_index: int | None = None) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise MissingDependencyError(
                "cuda-python is not installed; pip install 'maskport[engine]'"
            ) from error
        self._api: Any = runtime
        count = self._call("cudaGetDeviceCount")
        if count < 1:
            raise DeviceError("no CUDA GPU on this machine; run it where the GPU is")
        if device_index is not None:
            if device_index >= count:
                raise DeviceError(
                    f"device cuda:{device_index}: expected cuda:0 to cuda:{count - 1}, "
                    "the GPUs of this machine"
                )
            self._call("cudaSetDevice", device_index)
        self._device = self._call("cudaGetDevice")

    def architecture(self) -> str:
        """Of the current GPU, like "sm89"."""
        kinds = self._api.cudaDeviceAttr
        major, minor = (
            self._call("cudaDeviceGetAttribute", kind, self._device)
            for kind in (
                kinds.cudaDevAttrComputeCapabilityMajor,
                kinds.cudaDevAttrComputeCapabilityMinor,
            )
        )
        return f"sm{major}{minor}"

    def make_current(self) -> None:
        """Choose the GPU that was current when this was made, for the calling thread."""
        self._call("cudaSetDevice", self._device)

    def allocate(self, size_bytes: int) -> int:
        """Device memory."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        """Page-locked host memory, uint8 [size_bytes]."""
        address = int(self._call("cudaHostAlloc", size_bytes, 0))
        memory = (ctypes.c_uint8 * size_bytes).from_address(address)
        return np.ctypeslib.as_array(memory)

    def free_pinned(self, memory: npt.NDArray[np.uint8]) -> None:
        """Give pinned memory back."""
        self._call("cudaFreeHost", memory.ctypes.data)

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        flags = self._api.cudaStreamNonBlocking
        return int(self._call("cudaStreamCreateWithFlags", flags))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all work of a stream."""
        self._call("cudaStreamSynchronize", stream)

    def wait_for(self, stream: int, other: int) -> None:
        """Let later work of `stream` wait for what `other` has been given so far."""
        event = self.record(other)
        try:
            self.wait_for_event(stream, event)
        finally:
            self.destroy_event(event)

    def record(self, stream: int) -> int:
        """An event: what `stream` has been given so far."""
        event = int(self._call("cudaEventCreateWithFlags", self._api.cudaEventDisableTiming))
        try:
            self._call("cudaEventRecord", event, stream)
        except DeviceError:
            self.destroy_event(event)
            raise
        return event

    def wait_for_event(self, stream: int, event: int) -> None:
        """Let later work of `stream` wait for an event."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", event)

    def upload(self, address: int, memory: npt.NDArray[np.uint8], stream: int) -> None:
        """Copy host memory to the device, in stream order."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        source = memory.ctypes.data
        self._call("cudaMemcpyAsync", address, source, memory.nbytes, kind, stream)

    def download(self, memory: npt.NDArray[np.uint8], address: int, stream: int) -> None:
        """Copy device memory to host memory, in stream order."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        target = memory.ctypes.data
        self._call("cudaMemcpyAsync", target, address, memory.nbytes, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """Record the stream's work; other threads' allocations do not disturb it."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """An executable graph of what was recorded."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Replay a graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the runtime; an error code becomes `DeviceError`."""
        status, *values = getattr(self._api, name)(*arguments)
        if status != self._api.cudaError_t.cudaSuccess:
            raise DeviceError(f"{name}: {self._meaning(status)}{_REMEDIES.get(int(status), '')}")
        return values[0] if values else None

    def _meaning(self, status: Any) -> str:
        _, text = self._api.cudaGetErrorString(status)
        return text.decode() if isinstance(text, bytes) else str(text)


_REMEDIES = {
    2: "; lower the batch, or close other users of the GPU",
    35: "; no NVIDIA driver, or one that is older than the CUDA libraries; run it where the GPU is",
    100: "; run it where the GPU is",
}


def local_architecture() -> str:
    """Architecture of this machine's GPU, like "sm89".

    Raises:
        MissingDependencyError: cuda-python is not installed.
        DeviceError: no usable GPU.
    """
    return CudaRuntime().architecture()
