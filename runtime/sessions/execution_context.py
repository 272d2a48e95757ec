"""A TensorRT execution context with its own buffers, stream and CUDA graph."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.arrays import UInt8
from model.errors import DeviceError
from runtime.artifacts.engine_manifest import TensorInfo
from runtime.cuda.array_interface import DeviceArray
from runtime.cuda.driver import CudaRuntime
from runtime.sessions.session import Inputs, Outputs

if TYPE_CHECKING:
    import tensorrt as trt


class NoCudaGraphWarning(UserWarning):
    """An engine runs without the requested CUDA graphs."""


@dataclass(slots=True)
class _Buffer:
    """Device memory and pinned host memory for the largest batch of one tensor."""

    info: TensorInfo
    dtype: np.dtype[Any]
    address: int
    pinned: UInt8

    def shape(self, batch: int) -> tuple[int, ...]:
        return tuple(batch if side == -1 else side for side in self.info.shape)

    def host(self, batch: int) -> npt.NDArray[Any]:
        """The pinned memory as an array of `batch` images."""
        shape = self.shape(batch)
        return self.bytes(batch).view(self.dtype).reshape(shape)

    def bytes(self, batch: int) -> UInt8:
        return self.pinned[: math.prod(self.shape(batch)) * self.dtype.itemsize]


class ExecutionContext:
    """A context with its buffers; one call at a time uses it.

    The first call of a batch size runs directly; the second captures copies and network as one
    CUDA graph, which later calls replay. A graph is valid for one input shape, so another batch
    size starts over, and the session prefers a context that last ran the batch size of the call.

    Args:
        context: TensorRT's own.
        tensors: the engine's inputs and outputs.
        cuda: the GPU.
        largest_batch: capacity of the buffers.
        use_graphs: whether to capture CUDA graphs.
    """

    def __init__(
        self,
        context: trt.IExecutionContext,
        tensors: Sequence[TensorInfo],
        cuda: CudaRuntime,
        largest_batch: int,
        use_graphs: bool,
    ) -> None:
        self._context = context
        self._cuda = cuda
        self._buffers: dict[str, _Buffer] = {}
        self._graph: int | None = None
        self._is_warm = False
        self._use_graphs = use_graphs
        # Event after which a caller's stream no longer reads the buffers.
        self._released: int | None = None
        self.batch: int | None = None
        self.stream = cuda.create_stream()
        try:
            for info in tensors:
                self._allocate(info, largest_batch)
        except BaseException:
            self.close()
            raise

    def _allocate(self, info: TensorInfo, largest_batch: int) -> None:
        dtype = np.dtype(info.dtype)
        shape = tuple(largest_batch if side == -1 else side for side in info.shape)
        # An empty tensor still needs an address of its own.
        size = max(math.prod(shape) * dtype.itemsize, 1)
        address = self._cuda.allocate(size)
        self._buffers[info.name] = _Buffer(info, dtype, address, np.empty(0, np.uint8))
        self._buffers[info.name].pinned = self._cuda.allocate_pinned(size)
        self._bind(info.name, address)

    def _bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise DeviceError(f"TensorRT refuses an address for '{name}'; build the engine again")

    def run(self, inputs: Inputs, batch: int) -> Outputs:
        """Host arrays in, host arrays out."""
        self._wait_for_release(self.stream)
        for name, values in inputs.items():
            np.copyto(self._buffers[name].host(batch), values)
        self._set_batch(batch)
        self._execute(batch)
        self._cuda.synchronize(self.stream)
        return {b.info.name: b.host(batch).copy() for b in self._buffers_of("output")}

    def run_on_device(
        self, inputs: Mapping[str, DeviceArray], batch: int, stream: int
    ) -> dict[str, DeviceArray]:
        """Device arrays in, device arrays out, on `stream`, without a copy or a wait.

        The outputs are this context's buffers; its next run overwrites them.
        """
        self._wait_for_release(stream)
        self._set_batch(batch)
        for array in inputs.values():
            # 1 and 2 are the protocol's two default streams.
            if array.stream is not None and array.stream != stream:
                self._cuda.wait_for(stream, array.stream)
        try:
            for name, array in inputs.items():
                self._bind(name, array.address)
            self._enqueue(stream)
        finally:
            for buffer in self._buffers_of("input"):
                self._bind(buffer.info.name, buffer.address)
            # A capture must follow a run with the addresses that it captures.
            self._drop_graph()
        return {
            b.info.name: DeviceArray(b.address, b.shape(batch), b.dtype.str, self, stream)
            for b in self._buffers_of("output")
        }

    def release_after(self, stream: int) -> None:
        """Make the next run wait for the work that is on `stream` now; returns at once."""
        self._released = self._cuda.record(stream)

    def _wait_for_release(self, stream: int) -> None:
        event, self._released = self._released, None
        if event is not None:
            self._cuda.wait_for_event(stream, event)
            self._cuda.destroy_event(event)

    def close(self) -> None:
        """Free all resources, even if one of them fails."""
        with suppress(DeviceError):
            if self._released is not None:
                self._wait_for_release(self.stream)
                self._cuda.synchronize(self.stream)
        with suppress(DeviceError):
            self._drop_graph()
        for buffer in self._buffers.values():
            with suppress(DeviceError):
                self._cuda.free(buffer.address)
            if buffer.pinned.size:
                with suppress(DeviceError):
                    self._cuda.free_pinned(buffer.pinned)
        self._buffers.clear()
        # Before its engine; the session no longer hands out this context.
        del self._context
        with suppress(DeviceError):
            self._cuda.destroy_stream(self.stream)

    def _drop_graph(self) -> None:
        """Drop the captured graph; the next call runs directly again."""
        graph, self._graph, self._is_warm = self._graph, None, False
        if graph is not None:
            self._cuda.destroy_graph(graph)

    def _buffers_of(self, mode: str) -> list[_Buffer]:
        return [b for b in self._buffers.values() if b.info.mode == mode]

    def _set_batch(self, batch: int) -> None:
        if batch == self.batch:
            return
        self._drop_graph()
        self.batch = None
        for buffer in self._buffers_of("input"):
            if not self._context.set_input_shape(buffer.info.name, buffer.shape(batch)):
                raise DeviceError(
                    f"TensorRT refuses shape {buffer.shape(batch)} for '{buffer.info.name}'; "
                    "build an engine for this batch"
                )
        self.batch = batch

    def _execute(self, batch: int) -> None:
        if self._use_graphs and self._is_warm and self._graph is None:
            self._graph = self._capture(batch)
        if self._graph is not None:
            self._cuda.launch(self._graph, self.stream)
            return
        self._copy_and_run(batch)
        self._is_warm = True

    def _capture(self, batch: int) -> int | None:
        """Copies and network as one graph, or None if the network cannot be captured."""
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(self.stream):
            self._disable_graphs("the stream is not capturable")
            return None
        self._cuda.begin_capture(self.stream)
        try:
            self._copy_and_run(batch)
        except DeviceError as error:
            # A stream in capture mode refuses everything else.
            with suppress(DeviceError):
                self._cuda.destroy_graph(self._cuda.end_capture(self.stream))
            self._disable_graphs(str(error))
            return None
        try:
            return self._cuda.end_capture(self.stream)
        except DeviceError as error:
            self._disable_graphs(str(error))
            return None

    def _disable_graphs(self, reason: str) -> None:
        self._use_graphs = False
        warnings.warn(
            f"this engine cannot be captured as a CUDA graph ({reason}) and runs slower without "
            "one; pass cuda_graphs=False to silence this",
            NoCudaGraphWarning,
            stacklevel=2,
        )

    def _copy_and_run(self, batch: int) -> None:
        for buffer in self._buffers_of("input"):
            self._cuda.upload(buffer.address, buffer.bytes(batch), self.stream)
        self._enqueue(self.stream)
        for buffer in self._buffers_of("output"):
            self._cuda.download(buffer.bytes(batch), buffer.address, self.stream)

    def _enqueue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise DeviceError("TensorRT could not start the network; check the GPU with nvidia-smi")
