"""A TensorRT or TensorRT-RTX engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.errors import ArtifactError, UsageError
from runtime.artifacts.engine_manifest import TYPE_NAMES, EngineFile, TensorInfo, load_checked
from runtime.artifacts.metadata import Artifact
from runtime.cuda.array_interface import DEFAULT_STREAM, DeviceArray, take
from runtime.cuda.driver import Cuda, CudaRuntime
from runtime.files import atomic_path
from runtime.sessions.execution_context import Lane
from runtime.sessions.session import Answer, Feed
from runtime.sessions.tensorrt_library import check_architecture, listening_logger, load_library

# For mypy; at run time the module is the one that the engine was built with.
if TYPE_CHECKING:
    import tensorrt as trt

_MAX_CACHE_BYTES = 2**30


class TensorRTSession:
    """An engine with a pool of execution contexts, so that several threads may call it.

    Args:
        path: the engine; its manifest stands beside it.
        sha256: a hash from outside that the engine must have.
        contexts: how many calls may run at once; others wait.
        cuda_graphs: replay copies and network as one CUDA graph from the third call of a batch
            size on.
        runtime_cache: TensorRT-RTX: file that keeps the kernels compiled for this GPU. It is
            code, as the engine is: keep it where only you can write.
        cuda: the GPU; another one in tests.
        device_index: which GPU, where `cuda` is not given; None takes the current one.

    Raises:
        ArtifactError: no manifest, a hash that differs, another version or another GPU, or the
            library refuses the engine. All but the last before the library sees a byte.
        MissingDependencyError: a library is not installed.
        DeviceError: there is no usable GPU.
    """

    def __init__(
        self,
        path: Path,
        sha256: str | None = None,
        contexts: int = 4,
        cuda_graphs: bool = True,
        runtime_cache: Path | None = None,
        cuda: Cuda | None = None,
        device_index: int | None = None,
    ) -> None:
        if contexts < 1:
            raise UsageError(f"contexts: expected at least 1, got {contexts}")
        plan, self._file = load_checked(path, sha256)
        self._module = load_library(self._file)
        if not TYPE_CHECKING:
            trt = self._module
        self._cuda = cuda or CudaRuntime(device_index)
        check_architecture(self._file, self._cuda.architecture())
        self._cache_path = runtime_cache
        self._cache: Any = None
        self._last_error = "it gives no reason"
        self._logger = listening_logger(self._module, self._hear)
        self._runtime: trt.Runtime | None = trt.Runtime(self._logger)
        self._engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ArtifactError(f"{path}: {self._module.__name__} refuses it ({self._last_error})")
        self._check_tensors()
        self._config = self._runtime_config()
        self._graphs = cuda_graphs
        self._lock, self._made, self._most = threading.Lock(), 0, contexts
        self._idle: list[Lane] = []
        self._returned = threading.Condition(self._lock)

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest beside the engine."""
        return self._file.artifact

    @property
    def file(self) -> EngineFile:
        """How the engine was built."""
        return self._file

    def run(self, feed: Feed) -> Answer:
        """Run once on host arrays.

        Raises:
            UsageError: a batch or a size that the engine was not built for.
        """
        batch = self._check_feed({name: np.shape(values) for name, values in feed.items()})
        with self._lane(batch) as lane:
            return lane.run(feed, batch)

    @contextmanager
    def on_device(
        self, feed: Mapping[str, Any], stream: int | None = None
    ) -> Iterator[dict[str, DeviceArray]]:
        """Run once on device arrays; nothing is copied or awaited.

        What a block gives the stream may read the answer; later work must not, for the next call
        writes to the same memory as soon as that work is done.

        Args:
            feed: name → array with `__cuda_array_interface__` or `__dlpack__`, float32, dense.
            stream: of the caller; None takes one of ours, which `DeviceArray.stream` names.

        Raises:
            UsageError: not device memory, another type, or a shape that the engine does not take.
        """
        shapes = {name: _shape_of(name, value) for name, value in feed.items()}
        batch = self._check_feed(shapes)
        with self._lane(batch) as lane:
            # PyTorch calls its default stream 0; everybody else means 1 by that.
            chosen = lane.stream if stream is None else stream or DEFAULT_STREAM
            arrays = {name: take(name, value, chosen) for name, value in feed.items()}
            for name, array in arrays.items():
                if array.typestr != "<f4":
                    raise UsageError(f"{name}: expected float32, got '{array.typestr}'")
            try:
                yield lane.run_on_device(arrays, batch, chosen)
            finally:
                lane.leave(chosen)

    def close(self) -> None:
        """Free contexts, buffers and the engine; calls that still run finish first."""
        with self._returned:
            if self._engine is None:
                return
            self._engine = None
            idle, self._idle = self._idle, []
            self._returned.notify_all()
        for lane in idle:
            lane.close()
        self._runtime = None
        self._save_cache()

    @contextmanager
    def _lane(self, batch: int) -> Iterator[Lane]:
        """A context of one's own for as long as the block."""
        self._cuda.make_current()
        lane = self._borrow(batch)
        try:
            yield lane
        finally:
            self._give_back(lane)

    def _borrow(self, batch: int) -> Lane:
        """The idle context that last ran this batch size, else a new one, else any."""
        with self._returned:
            while True:
                self._opened()
                same = [lane for lane in self._idle if lane.batch == batch]
                if same or (self._idle and self._made >= self._most):
                    lane = same[-1] if same else self._idle[0]
                    self._idle.remove(lane)
                    return lane
                if self._made < self._most:
                    lane = self._make_lane()
                    self._made += 1
                    return lane
                self._returned.wait()

    def _give_back(self, lane: Lane) -> None:
        with self._returned:
            if self._engine is not None:
                self._idle.append(lane)
                self._returned.notify()
                return
        lane.close()

    def _opened(self) -> trt.ICudaEngine:
        if self._engine is None:
            raise ArtifactError(f"{self.artifact.path}: the session is closed; open it again")
        return self._engine

    def _make_lane(self) -> Lane:
        make = self._opened().create_execution_context
        context = make() if self._config is None else make(self._config)
        if context is None:
            raise ArtifactError(
                f"{self.artifact.path}: no execution context ({self._last_error}); "
                "the GPU may be out of memory"
            )
        _, most = self.artifact.manifest.batch_bounds
        return Lane(context, self._file.info.tensors, self._cuda, most or 1, self._graphs)

    def _check_feed(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The batch of a feed whose names and sizes fit."""
        inputs = [t for t in self._file.info.tensors if t.mode == "input"]
        if set(shapes) != {t.name for t in inputs}:
            raise UsageError(
                f"{self.artifact.path}: expected inputs {', '.join(t.name for t in inputs)}, "
                f"got {', '.join(shapes)}"
            )
        batch = shapes[inputs[0].name][0] if shapes[inputs[0].name] else 0
        low, high = self.artifact.manifest.batch_bounds
        if not low <= batch <= (high or batch):
            raise UsageError(
                f"{self.artifact.path}: built for a batch of {low} to {high}, got {batch}; "
                f"export with --batch {batch} or a range, and build again"
            )
        for tensor in inputs:
            expected = tuple(batch if side == -1 else side for side in tensor.shape)
            if shapes[tensor.name] != expected:
                raise UsageError(
                    f"{self.artifact.path}: input {tensor.name}: built for {_text(tensor)}, got "
                    f"{list(shapes[tensor.name])}; export with that --size and build again"
                )
        return batch

    def _check_tensors(self) -> None:
        """The engine's own inputs and outputs against the manifest's."""
        if not TYPE_CHECKING:
            trt = self._module
        engine = self._opened()
        found: set[tuple[str, str, str, tuple[int, ...]]] = set()
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            mode, shape = "input" if is_input else "output", tuple(engine.get_tensor_shape(name))
            found.add(
                (name, mode, TYPE_NAMES.get(str(engine.get_tensor_dtype(name).name), ""), shape)
            )
        said = self._file.info.tensors
        if found != {(t.name, t.mode, t.dtype, t.shape) for t in said}:
            raise ArtifactError(
                f"{self.artifact.path}: its inputs and outputs are not those of its manifest; "
                "build it again"
            )

    def _runtime_config(self) -> Any:
        """TensorRT-RTX: how its last kernels are compiled, and where they are kept."""
        if self._module.__name__ != "tensorrt_rtx":
            if self._cache_path is not None:
                raise UsageError("runtime_cache: only TensorRT-RTX compiles kernels when it runs")
            return None
        config: Any = self._opened().create_runtime_config()
        # Else kernels for the shapes at hand come later, when a graph holds the general ones.
        kinds = self._module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = kinds.EAGER
        if self._cache_path is None:
            return config
        self._cache = config.create_runtime_cache()
        if self._cache_path.is_file() and self._cache_path.stat().st_size <= _MAX_CACHE_BYTES:
            # One of another GPU or version is refused by the library, and then written anew.
            self._cache.deserialize(self._cache_path.read_bytes())
        config.set_runtime_cache(self._cache)
        return config

    def _save_cache(self) -> None:
        if self._cache is None or self._cache_path is None:
            return
        blob = self._cache.serialize()
        if blob is not None:
            with atomic_path(self._cache_path) as temporary:
                temporary.write_bytes(bytes(memoryview(blob)))

    def _hear(self, said: str, is_error: bool) -> None:
        if is_error:
            self._last_error = said[:200]


def _shape_of(name: str, value: Any) -> tuple[int, ...]:
    shape = getattr(value, "shape", None)
    if shape is None:
        shape = getattr(value, "__cuda_array_interface__", {}).get("shape")
    if shape is None:
        raise UsageError(f"{name}: expected an array on the GPU, got {type(value).__name__}")
    return tuple(int(side) for side in shape)


def _text(tensor: TensorInfo) -> str:
    return str(["batch" if side == -1 else side for side in tensor.shape])
