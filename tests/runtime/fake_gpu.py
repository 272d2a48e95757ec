"""A fake GPU in host memory and a fake TensorRT that runs ONNX Runtime behind its interface.

They test how the session handles addresses, streams, shapes and graphs on a machine without a GPU,
not TensorRT itself. Work on a stream runs when the stream is synchronized, so that a missing wait
gives stale outputs.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime.artifacts.engine_manifest import EngineInfo, TensorInfo, manifest_path, to_text
from runtime.artifacts.metadata import from_metadata

VERSION = "1.7.1.116"
_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32"}


class FakeCuda:
    """The interface of `runtime.cuda.driver.CudaRuntime`; counts live resources and calls."""

    def __init__(self, architecture: str = "sm89") -> None:
        self._architecture = architecture
        self._memory: dict[int, np.ndarray] = {}
        self._streams: dict[int, list[Callable[[], None]]] = {}
        self._captures: dict[int, list[Callable[[], None]]] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._events: dict[int, int] = {}
        self._names = itertools.count(1000)
        self.counts: defaultdict[str, int] = defaultdict(int)

    @property
    def alive(self) -> int:
        resources = (self._memory, self._streams, self._graphs, self._events)
        return sum(map(len, resources))

    def architecture(self) -> str:
        return self._architecture

    def make_current(self) -> None:
        self.counts["make_current"] += 1

    def allocate(self, size_bytes: int) -> int:
        memory = np.full(size_bytes, 0xAB, np.uint8)
        self._memory[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def free(self, address: int) -> None:
        del self._memory[address]

    def allocate_pinned(self, size_bytes: int) -> np.ndarray:
        return self._memory[self.allocate(size_bytes)]

    def free_pinned(self, memory: np.ndarray) -> None:
        self.free(memory.ctypes.data)

    def create_stream(self) -> int:
        name = next(self._names)
        self._streams[name] = []
        return name

    def destroy_stream(self, stream: int) -> None:
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        assert stream not in self._captures, "a stream in capture mode must not be synchronized"
        self.counts["synchronize"] += 1
        work, self._streams[stream] = self._streams[stream], []
        for step in work:
            step()

    def wait_for(self, stream: int, other: int) -> None:
        self.counts["wait_for"] += 1
        self.submit(stream, lambda: self.synchronize(other))

    def record(self, stream: int) -> int:
        name = next(self._names)
        self._events[name] = stream
        return name

    def wait_for_event(self, stream: int, event: int) -> None:
        other = self._events[event]
        # An event outlives its stream.
        if other != stream and other in self._streams:
            self.submit(stream, lambda: self.synchronize(other))

    def destroy_event(self, event: int) -> None:
        del self._events[event]

    def submit(self, stream: int, step: Callable[[], None]) -> None:
        assert stream in self._streams, "unknown stream"
        self._captures.get(stream, self._streams[stream]).append(step)

    def upload(self, address: int, memory: np.ndarray, stream: int) -> None:
        self.counts["upload"] += 1
        source, size = memory.ctypes.data, memory.nbytes
        self.submit(stream, lambda: ctypes.memmove(address, source, size) and None)

    def download(self, memory: np.ndarray, address: int, stream: int) -> None:
        self.counts["download"] += 1
        target, size = memory.ctypes.data, memory.nbytes
        self.submit(stream, lambda: ctypes.memmove(target, address, size) and None)

    def begin_capture(self, stream: int) -> None:
        self._captures[stream] = []

    def end_capture(self, stream: int) -> int:
        name = next(self._names)
        self._graphs[name] = self._captures.pop(stream)
        return name

    def launch(self, graph: int, stream: int) -> None:
        self.counts["launch"] += 1
        for step in self._graphs[graph]:
            self.submit(stream, step)

    def destroy_graph(self, graph: int) -> None:
        del self._graphs[graph]


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.types and not self._engine.module.refuses_addresses

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return not self._engine.module.refuses_shapes

    def execute_async_v3(self, stream: int) -> bool:
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        self._engine.cuda.submit(stream, lambda: self._run(addresses, shapes))
        return not self._engine.module.refuses_to_run

    def _run(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        inputs = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape)) * 4
            memory = (ctypes.c_uint8 * size).from_address(addresses[name])
            inputs[name] = np.frombuffer(bytes(memory), np.float32).reshape(shape)
        names = [o.name for o in self._engine.session.get_outputs()]
        for name, value in zip(names, self._engine.session.run(names, inputs), strict=True):
            flat = np.ascontiguousarray(value)
            ctypes.memmove(addresses[name], flat.ctypes.data, flat.nbytes)


class _Engine:
    def __init__(self, module: FakeTensorRT, plan: bytes) -> None:
        self.module, self.cuda = module, module.cuda
        self.session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self.types = {t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())}
        self._inputs = {t.name for t in self.session.get_inputs()}
        self.num_io_tensors = len(self.types)

    def get_tensor_name(self, index: int) -> str:
        return list(self.types)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name in self._inputs else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> Any:
        dtype = {"tensor(float)": "FLOAT", "tensor(int32)": "INT32"}[self.types[name].type]
        return SimpleNamespace(name=dtype)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(s if isinstance(s, int) else -1 for s in self.types[name].shape)

    def create_runtime_config(self) -> Any:
        return self.module.config

    def create_execution_context(self, config: Any = None) -> _Context | None:
        self.module.contexts += 1
        return None if self.module.out_of_memory else _Context(self)


class _Cache:
    """A runtime cache that grows with every save."""

    def __init__(self) -> None:
        self.loaded = b""

    def deserialize(self, blob: bytes) -> bool:
        self.loaded = blob
        return True

    def serialize(self) -> bytes:
        return self.loaded + b"+kernels"


class FakeTensorRT:
    """Replaces the module `tensorrt_rtx`; an engine's bytes are an ONNX file's."""

    TensorIOMode = SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="EAGER")

    class ILogger:
        ERROR, WARNING = 1, 2

    def __init__(self, cuda: FakeCuda, version: str = VERSION) -> None:
        self.__name__, self.__version__ = "tensorrt_rtx", version
        self.cuda, self.contexts = cuda, 0
        self.deserialized: list[bytes] = []
        self.refuses = self.refuses_to_run = self.out_of_memory = False
        self.refuses_addresses = self.refuses_shapes = False
        self.cache = _Cache()
        self.config = SimpleNamespace(
            create_runtime_cache=lambda: self.cache, set_runtime_cache=lambda cache: None
        )

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 - the library's own spelling
        def deserialize_cuda_engine(plan: bytes) -> _Engine | None:
            self.deserialized.append(plan)
            if self.refuses:
                logger.log(1, "Serialization  assertion failed")
                return None
            return _Engine(self, plan)

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)


def write_engine(onnx_path: Path, engine: Path, **changes: Any) -> Path:
    """An "engine" whose bytes are the ONNX file's, with a valid manifest."""
    plan = onnx_path.read_bytes()
    tensors, metadata = _tensors_and_metadata(plan)
    digest = hashlib.sha256(plan).hexdigest()
    info = EngineInfo(digest, len(plan), "tensorrt_rtx", VERSION, "sm89", digest, tensors)
    artifact = from_metadata(engine, metadata)
    engine.write_bytes(plan)
    manifest_path(engine).write_text(to_text(artifact, replace(info, **changes)), "utf-8")
    return engine


@cache
def _tensors_and_metadata(plan: bytes) -> tuple[tuple[TensorInfo, ...], dict[str, str]]:
    session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
    sides = [("input", t) for t in session.get_inputs()]
    sides += [("output", t) for t in session.get_outputs()]
    tensors = tuple(
        TensorInfo(
            t.name, mode, _DTYPES[t.type], tuple(s if isinstance(s, int) else -1 for s in t.shape)
        )  # type: ignore[arg-type]
        for mode, t in sides
    )
    return tensors, session.get_modelmeta().custom_metadata_map
