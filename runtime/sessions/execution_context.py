"""One execution context with buffers, stream and graphs of its own; used by one call at a time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.errors import DeviceError
from runtime.artifacts.engine_manifest import TensorInfo
from runtime.cuda.array_interface import DeviceArray
from runtime.cuda.driver import Cuda
from runtime.sessions.session import Answer, Feed

if TYPE_CHECKING:
    import tensorrt as trt

UInt8 = npt.NDArray[np.uint8]


class NoCudaGraphWarning(UserWarning):
    """An engine runs, but without the CUDA graphs that were asked for."""


@dataclass(slots=True)
class _Buffer:
    """Room for the largest batch of one tensor, on the GPU and pinned on the host."""

    info: TensorInfo
    dtype: np.dtype[Any]
    address: int
    pinned: UInt8

    def shape(self, batch: int) -> tuple[int, ...]:
        return tuple(batch if side == -1 else side for side in self.info.shape)

    def host(self, batch: int) -> npt.NDArray[Any]:
        """The pinned memory as an array of so many images."""
        shape = self.shape(batch)
        return self.bytes(batch).view(self.dtype).reshape(shape)

    def bytes(self, batch: int) -> UInt8:
        return self.pinned[: math.prod(self.shape(batch)) * self.dtype.itemsize]


class Lane:
    """A context that is kept with everything that it needs.

    The first call of a batch size runs step by step; the second records copies and network as one
    CUDA graph, which later calls replay. Another batch size begins anew: a graph holds for the
    shapes that its context had. The session therefore gives a call the lane of its batch size.

    Args:
        context: of the engine.
        tensors: inputs and outputs.
        cuda: the GPU.
        largest_batch: what the buffers must hold.
        use_graphs: whether to record.
    """

    def __init__(
        self,
        context: trt.IExecutionContext,
        tensors: Sequence[TensorInfo],
        cuda: Cuda,
        largest_batch: int,
        use_graphs: bool,
    ) -> None:
        self._context = context
        self._cuda = cuda
        self._buffers: dict[str, _Buffer] = {}
        self._graph: int | None = None
        self._is_warm = False
        self._use_graphs = use_graphs
        # What a caller's stream still does with the buffers.
        self._in_use: int | None = None
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
            raise DeviceError(f"TensorRT does not take an address for '{name}'")

    def run(self, feed: Feed, batch: int) -> Answer:
        """Host arrays in, host arrays out."""
        self._wait_for_reader(self.stream)
        for name, values in feed.items():
            np.copyto(self._buffers[name].host(batch), values)
        self._set_batch(batch)
        self._execute(batch)
        self._cuda.synchronise(self.stream)
        return {b.info.name: b.host(batch).copy() for b in self._side("output")}

    def run_on_device(
        self, feed: Mapping[str, DeviceArray], batch: int, stream: int
    ) -> dict[str, DeviceArray]:
        """Device arrays in, device arrays out, on the given stream; nothing is copied or awaited.

        What is answered lies in this lane's buffers and is overwritten by its next run.
        """
        self._wait_for_reader(stream)
        self._set_batch(batch)
        for array in feed.values():
            # 1 and 2 are the protocol's names of the two default streams.
            if array.stream is not None and array.stream != stream:
                self._cuda.wait_for(stream, array.stream)
        try:
            for name, array in feed.items():
                self._bind(name, array.address)
            self._enqueue(stream)
        finally:
            for buffer in self._side("input"):
                self._bind(buffer.info.name, buffer.address)
            # A recording wants a run with the addresses that it will hold before it.
            self._forget()
        return {
            b.info.name: DeviceArray(b.address, b.shape(batch), b.dtype.str, self, stream)
            for b in self._side("output")
        }

    def leave(self, stream: int) -> None:
        """Let the next run wait for what this stream has been given so far; nobody waits here."""
        self._in_use = self._cuda.record(stream)

    def _wait_for_reader(self, stream: int) -> None:
        event, self._in_use = self._in_use, None
        if event is not None:
            self._cuda.wait_for_event(stream, event)
            self._cuda.destroy_event(event)

    def close(self) -> None:
        """Free everything, whatever of it fails."""
        with suppress(DeviceError):
            if self._in_use is not None:
                self._wait_for_reader(self.stream)
                self._cuda.synchronise(self.stream)
        with suppress(DeviceError):
            self._forget()
        for buffer in self._buffers.values():
            with suppress(DeviceError):
                self._cuda.free(buffer.address)
            if buffer.pinned.size:
                with suppress(DeviceError):
                    self._cuda.free_pinned(buffer.pinned)
        self._buffers.clear()
        # Before its engine; nobody is given a lane that was closed.
        del self._context
        with suppress(DeviceError):
            self._cuda.destroy_stream(self.stream)

    def _forget(self) -> None:
        """Drop the recorded graph; the next call runs step by step again."""
        graph, self._graph, self._is_warm = self._graph, None, False
        if graph is not None:
            self._cuda.destroy_graph(graph)

    def _side(self, mode: str) -> list[_Buffer]:
        return [b for b in self._buffers.values() if b.info.mode == mode]

    def _set_batch(self, batch: int) -> None:
        if batch == self.batch:
            return
        self._forget()
        self.batch = None
        for buffer in self._side("input"):
            if not self._context.set_input_shape(buffer.info.name, buffer.shape(batch)):
                raise DeviceError(
                    f"TensorRT refuses shape {buffer.shape(batch)} for '{buffer.info.name}'"
                )
        self.batch = batch

    def _execute(self, batch: int) -> None:
        if self._use_graphs and self._is_warm and self._graph is None:
            self._graph = self._record(batch)
        if self._graph is not None:
            self._cuda.launch(self._graph, self.stream)
            return
        self._copy_and_run(batch)
        self._is_warm = True

    def _record(self, batch: int) -> int | None:
        """Copies and network as one graph, or None where the library cannot be recorded."""
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(self.stream):
            self._without_graphs("the library says so")
            return None
        self._cuda.begin_capture(self.stream)
        try:
            self._copy_and_run(batch)
        except DeviceError as error:
            # A stream that is left recording refuses everything else.
            with suppress(DeviceError):
                self._cuda.destroy_graph(self._cuda.end_capture(self.stream))
            self._without_graphs(str(error))
            return None
        try:
            return self._cuda.end_capture(self.stream)
        except DeviceError as error:
            self._without_graphs(str(error))
            return None

    def _without_graphs(self, why: str) -> None:
        self._use_graphs = False
        warnings.warn(
            f"this engine cannot be recorded as a CUDA graph ({why}); it runs without, which is "
            "slower; cuda_graphs=False says so beforehand",
            NoCudaGraphWarning,
            stacklevel=2,
        )

    def _copy_and_run(self, batch: int) -> None:
        for buffer in self._side("input"):
            self._cuda.upload(buffer.address, buffer.bytes(batch), self.stream)
        self._enqueue(self.stream)
        for buffer in self._side("output"):
            self._cuda.download(buffer.bytes(batch), buffer.address, self.stream)

    def _enqueue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise DeviceError("TensorRT could not start the network")
