"""Memory, streams and graphs of the CUDA runtime through cuda-python, without PyTorch.

Addresses, streams, events and graphs are plain integers, as TensorRT takes them.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import DeviceError, MissingDependencyError


class CudaRuntime:
    """The CUDA runtime of one device.

    Args:
        device_index: becomes the calling thread's current device; None keeps the current one.

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
            raise DeviceError("no CUDA GPU on this machine; run on a machine with one")
        if device_index is not None:
            if device_index >= count:
                raise DeviceError(
                    f"device cuda:{device_index}: expected cuda:0 to cuda:{count - 1}, "
                    "the GPUs of this machine"
                )
            self._call("cudaSetDevice", device_index)
        self._device = self._call("cudaGetDevice")

    def architecture(self) -> str:
        """The architecture of this GPU, like "sm89"."""
        attributes = self._api.cudaDeviceAttr
        major, minor = (
            self._call("cudaDeviceGetAttribute", attribute, self._device)
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        )
        return f"sm{major}{minor}"

    def make_current(self) -> None:
        """Make this GPU current in the calling thread; a new thread starts with GPU 0."""
        self._call("cudaSetDevice", self._device)

    def allocate(self, size_bytes: int) -> int:
        """Allocate device memory."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        """Allocate page-locked host memory for asynchronous copies, uint8 [size_bytes]."""
        address = int(self._call("cudaHostAlloc", size_bytes, 0))
        memory = (ctypes.c_uint8 * size_bytes).from_address(address)
        return np.ctypeslib.as_array(memory)

    def free_pinned(self, memory: npt.NDArray[np.uint8]) -> None:
        """Free pinned memory; the array must not be used again."""
        self._call("cudaFreeHost", memory.ctypes.data)

    def create_stream(self) -> int:
        """Create a stream that does not synchronize with the default one."""
        flags = self._api.cudaStreamNonBlocking
        return int(self._call("cudaStreamCreateWithFlags", flags))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Block until all work of a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def wait_for(self, stream: int, other: int) -> None:
        """Make later work of `stream` wait for all work that is on `other` now."""
        event = self.record(other)
        try:
            self.wait_for_event(stream, event)
        finally:
            self.destroy_event(event)

    def record(self, stream: int) -> int:
        """Record an event after all work that is on `stream` now; it outlives the stream."""
        event = int(self._call("cudaEventCreateWithFlags", self._api.cudaEventDisableTiming))
        try:
            self._call("cudaEventRecord", event, stream)
        except DeviceError:
            self.destroy_event(event)
            raise
        return event

    def wait_for_event(self, stream: int, event: int) -> None:
        """Make later work of `stream` wait for an event."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def destroy_event(self, event: int) -> None:
        """Destroy an event; pending waits on it stay valid."""
        self._call("cudaEventDestroy", event)

    def upload(self, address: int, memory: npt.NDArray[np.uint8], stream: int) -> None:
        """Copy pinned host memory to the device, in stream order."""
        direction = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        source = memory.ctypes.data
        self._call("cudaMemcpyAsync", address, source, memory.nbytes, direction, stream)

    def download(self, memory: npt.NDArray[np.uint8], address: int, stream: int) -> None:
        """Copy device memory to pinned host memory, in stream order."""
        direction = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        target = memory.ctypes.data
        self._call("cudaMemcpyAsync", target, address, memory.nbytes, direction, stream)

    def begin_capture(self, stream: int) -> None:
        """Capture the stream's work in place of running it; other threads may allocate."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """Return the captured work as an executable graph."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Replay a graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the runtime; an error code raises `DeviceError`."""
        status, *values = getattr(self._api, name)(*arguments)
        if status != self._api.cudaError_t.cudaSuccess:
            raise DeviceError(f"{name}: {self._error_text(status)}{_REMEDIES.get(int(status), '')}")
        return values[0] if values else None

    def _error_text(self, status: Any) -> str:
        _, text = self._api.cudaGetErrorString(status)
        return text.decode() if isinstance(text, bytes) else str(text)


_REMEDIES = {
    2: "; lower the batch, or close other users of the GPU",
    35: "; no NVIDIA driver, or one older than the CUDA libraries; run on a machine with a GPU",
    100: "; run on a machine with a GPU",
}


def local_architecture() -> str:
    """Architecture of the current GPU, like "sm89".

    Raises:
        MissingDependencyError: cuda-python is not installed.
        DeviceError: no usable GPU.
    """
    return CudaRuntime().architecture()
