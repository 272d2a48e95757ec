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
from runtime.cuda.array_interface import DEFAULT_STREAM, DeviceArray, as_device_array
from runtime.cuda.driver import CudaRuntime
from runtime.files import atomic_path
from runtime.sessions.execution_context import ExecutionContext
from runtime.sessions.session import Inputs, Outputs
from runtime.sessions.tensorrt_library import check_architecture, forwarding_logger, load_library

# For mypy; at run time it is the module that the engine was built with.
if TYPE_CHECKING:
    import tensorrt as trt

_MAX_CACHE_BYTES = 2**30


class TensorRTSession:
    """An engine with a pool of execution contexts, so that several threads may call it.

    Args:
        path: the engine, with its manifest beside it.
        sha256: expected hash of the engine, or None.
        contexts: number of concurrent calls; further calls wait.
        cuda_graphs: replay copies and network as one CUDA graph from the third call of a batch
            size on.
        runtime_cache: TensorRT-RTX: file for the kernels compiled for this GPU. It is executable
            code, as the engine is: store it where only you can write.
        cuda: the GPU; tests pass a fake one.
        device_index: of the GPU if `cuda` is None; None takes the current one.

    Raises:
        ArtifactError: no manifest, a different hash, version or GPU, all checked before the
            library reads a byte; or the library refuses the engine.
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
        cuda: CudaRuntime | None = None,
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
        self._last_error = "no reason given"
        self._logger = forwarding_logger(self._module, self._on_log)
        self._runtime: trt.Runtime | None = trt.Runtime(self._logger)
        self._engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ArtifactError(
                f"{path}: {self._module.__name__} refuses it ({self._last_error}); "
                "build the engine again with the installed version"
            )
        self._check_tensors()
        self._config = self._runtime_config()
        self._use_graphs = cuda_graphs
        self._created, self._most_contexts = 0, contexts
        self._idle: list[ExecutionContext] = []
        self._returned = threading.Condition()

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest of the engine."""
        return self._file.artifact

    @property
    def file(self) -> EngineFile:
        """How the engine was built."""
        return self._file

    def run(self, inputs: Inputs) -> Outputs:
        """Run once on host arrays.

        Raises:
            UsageError: a batch or a size that the engine was not built for.
        """
        batch = self._checked_batch({name: np.shape(values) for name, values in inputs.items()})
        with self._context(batch) as context:
            return context.run(inputs, batch)

    @contextmanager
    def on_device(
        self, inputs: Mapping[str, Any], stream: int | None = None
    ) -> Iterator[dict[str, DeviceArray]]:
        """Run once on device arrays, without a copy or a wait.

        Work that the block enqueues on the stream may read the outputs. Later work must not: the
        next call overwrites them as soon as that work is done.

        Args:
            inputs: name → array with `__cuda_array_interface__` or `__dlpack__`, float32, dense.
            stream: the caller's; None takes the context's, which is `DeviceArray.stream`.

        Raises:
            UsageError: not device memory, another dtype, or a shape that the engine refuses.
        """
        batch = self._checked_batch({n: _shape_of(n, value) for n, value in inputs.items()})
        with self._context(batch) as context:
            # PyTorch's default stream is 0; both array protocols write it as 1.
            chosen = context.stream if stream is None else stream or DEFAULT_STREAM
            arrays = {name: as_device_array(name, v, chosen) for name, v in inputs.items()}
            for name, array in arrays.items():
                if array.typestr != "<f4":
                    raise UsageError(f"{name}: expected float32, got '{array.typestr}'")
            try:
                yield context.run_on_device(arrays, batch, chosen)
            finally:
                context.release_after(chosen)

    def close(self) -> None:
        """Free contexts, buffers and the engine; running calls finish first."""
        with self._returned:
            if self._engine is None:
                return
            self._engine = None
            idle, self._idle = self._idle, []
            self._returned.notify_all()
        for context in idle:
            context.close()
        self._runtime = None
        self._save_cache()

    @contextmanager
    def _context(self, batch: int) -> Iterator[ExecutionContext]:
        """A context for the block alone."""
        self._cuda.make_current()
        context = self._acquire(batch)
        try:
            yield context
        finally:
            self._release(context)

    def _acquire(self, batch: int) -> ExecutionContext:
        """An idle context that last ran this batch size, else a new one, else any idle one."""
        with self._returned:
            while True:
                self._open_engine()
                same = [context for context in self._idle if context.batch == batch]
                if same or (self._idle and self._created >= self._most_contexts):
                    context = same[-1] if same else self._idle[0]
                    self._idle.remove(context)
                    return context
                if self._created < self._most_contexts:
                    context = self._create_context()
                    self._created += 1
                    return context
                self._returned.wait()

    def _release(self, context: ExecutionContext) -> None:
        with self._returned:
            if self._engine is not None:
                self._idle.append(context)
                self._returned.notify()
                return
        context.close()

    def _open_engine(self) -> trt.ICudaEngine:
        if self._engine is None:
            raise ArtifactError(f"{self.artifact.path}: the session is closed; open it again")
        return self._engine

    def _create_context(self) -> ExecutionContext:
        create = self._open_engine().create_execution_context
        context = create() if self._config is None else create(self._config)
        if context is None:
            raise ArtifactError(
                f"{self.artifact.path}: no execution context ({self._last_error}); "
                "the GPU may be out of memory"
            )
        _, most = self.artifact.manifest.batch_bounds
        tensors = self._file.info.tensors
        return ExecutionContext(context, tensors, self._cuda, most or 1, self._use_graphs)

    def _checked_batch(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The batch of inputs whose names and shapes fit the engine."""
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
        """Compare the engine's own inputs and outputs with the manifest's."""
        if not TYPE_CHECKING:
            trt = self._module
        engine = self._open_engine()
        actual: set[tuple[str, str, str, tuple[int, ...]]] = set()
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            dtype = TYPE_NAMES.get(str(engine.get_tensor_dtype(name).name), "")
            mode, shape = "input" if is_input else "output", tuple(engine.get_tensor_shape(name))
            actual.add((name, mode, dtype, shape))
        if actual != {(t.name, t.mode, t.dtype, t.shape) for t in self._file.info.tensors}:
            raise ArtifactError(
                f"{self.artifact.path}: its inputs and outputs differ from its manifest's; "
                "build it again"
            )

    def _runtime_config(self) -> Any:
        """TensorRT-RTX: when it compiles the kernels of this GPU, and their cache."""
        if self._module.__name__ != "tensorrt_rtx":
            if self._cache_path is not None:
                raise UsageError(
                    "runtime_cache: only TensorRT-RTX compiles kernels at run time; leave it out"
                )
            return None
        config: Any = self._open_engine().create_runtime_config()
        # Otherwise specialized kernels arrive after the CUDA graph has captured the generic ones.
        strategies = self._module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        if self._cache_path is None:
            return config
        self._cache = config.create_runtime_cache()
        if self._cache_path.is_file() and self._cache_path.stat().st_size <= _MAX_CACHE_BYTES:
            # The library refuses the cache of another GPU or version; close() then replaces it.
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

    def _on_log(self, message: str, is_error: bool) -> None:
        if is_error:
            self._last_error = message[:200]


def _shape_of(name: str, value: Any) -> tuple[int, ...]:
    shape = getattr(value, "shape", None)
    if shape is None:
        shape = getattr(value, "__cuda_array_interface__", {}).get("shape")
    if shape is None:
        raise UsageError(f"{name}: expected an array on the GPU, got {type(value).__name__}")
    return tuple(int(side) for side in shape)


def _text(tensor: TensorInfo) -> str:
    return str(["batch" if side == -1 else side for side in tensor.shape])
