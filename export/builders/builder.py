"""One builder for both libraries: parse, check the types, configure, compile.

Only names that TensorRT 10.12, TensorRT 11 and TensorRT-RTX share are used here; what differs is
in the adapters.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.builders.library import Library
from export.builders.messages import Messages, parse_failure
from export.builders.options import BuildOptions
from export.builders.progress import BuildProgress
from model.errors import EngineBuildError
from runtime.artifacts.engine_manifest import TYPE_NAMES, TensorInfo
from runtime.artifacts.metadata import Manifest
from runtime.sessions.tensorrt_library import forwarding_logger

# For mypy the bindings are TensorRT's, whose stubs `make typecheck-tensorrt` generates; at run time
# they are the adapter's, which is why functions begin with `trt = library.module`.
if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled engine and what was seen on the way.

    `layer_types` counts convolutions and products by the type that they answer in.
    """

    plan: Any
    tensors: tuple[TensorInfo, ...]
    layer_types: dict[str, int]
    quantize_layers: int
    warnings: tuple[str, ...]
    seconds: float


def build(
    library: Library,
    graph: bytes,
    manifest: Manifest,
    architecture: str,
    options: BuildOptions,
    progress: BuildProgress,
) -> Built:
    """Compile one graph for one architecture.

    Args:
        library: the adapter.
        graph: a serialised ONNX model.
        manifest: of that model; its precision and its batch range are what is built.
        architecture: like "sm89".
        options: what was asked for.
        progress: told about every step; an interrupt stops the build at the next one.

    Raises:
        EngineBuildError: the parser or the builder refused, or the parsed network does not have
            the precision that the manifest promises.
        KeyboardInterrupt: after the library has stopped.
    """
    if not TYPE_CHECKING:
        trt = library.module
    started, messages = time.perf_counter(), Messages()
    logger = forwarding_logger(library.module, messages.add)
    builder = trt.Builder(logger)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    flags = 0 if strongly_typed is None else 1 << int(strongly_typed)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise parse_failure(f"{library.name} cannot read the graph", parser.get_error(0))
    _check_inputs(network, manifest)
    layer_types, quantize_layers = _layer_types(network, library)
    check_precision(manifest.precision, layer_types, quantize_layers)
    config = builder.create_builder_config()
    _configure(config, library, options)
    library.configure(config, architecture, options)
    _add_profile(config, builder, network, manifest)
    config.progress_monitor = _monitor(library, progress)
    plan = _interruptible(lambda: builder.build_serialized_network(network, config), progress)
    if plan is None:
        raise messages.failure(f"{library.name} {library.version} cannot build for {architecture}")
    library.finish(config, options)
    seconds = time.perf_counter() - started
    return Built(
        plan,
        _tensors(network),
        layer_types,
        quantize_layers,
        tuple(messages.warnings),
        seconds,
    )


def check_precision(precision: str, layer_types: dict[str, int], quantize_layers: int) -> None:
    """Refuse a network whose types are not what its file says.

    Args:
        precision: of the file's manifest: fp32, fp16, bf16, or int8 with a rest.
        layer_types: type → number of convolutions and products that answer in it.
        quantize_layers: Q nodes.

    Raises:
        EngineBuildError: the promised type is nowhere, or another stands in an FP32 network.
    """
    promised = {"fp16": "float16", "bf16": "bfloat16"}.get(precision)
    seen = ", ".join(f"{count} {kind}" for kind, count in sorted(layer_types.items())) or "none"
    others = set(layer_types) - {"float32"}
    if precision == "fp32" and (others or quantize_layers):
        raise EngineBuildError(
            f"precision fp32: expected every convolution in float32, got {seen} and "
            f"{quantize_layers} Q nodes; export the graph again"
        )
    if promised is not None and 2 * layer_types.get(promised, 0) < sum(layer_types.values()):
        raise EngineBuildError(
            f"precision {precision}: expected most convolutions in {promised}, got {seen}; "
            "export the graph again"
        )
    if precision.startswith(("int8", "fp8")) and quantize_layers == 0:
        raise EngineBuildError(
            f"precision {precision}: the network has no Q nodes; quantise it again"
        )


def _check_inputs(network: trt.INetworkDefinition, manifest: Manifest) -> None:
    """Refuse a graph whose sizes are not what its metadata says: the runtime goes by those.

    Raises:
        EngineBuildError: another canvas, or another kind of batch.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in inputs:
        shape = tuple(tensor.shape)
        batch = -1 if manifest.batch_range is not None else manifest.batch
        expected = (batch, 3, manifest.height, manifest.width)
        if tensor.name == "images" and shape != expected:
            raise EngineBuildError(
                f"the file's metadata says images of {list(expected)}, its graph takes "
                f"{list(shape)} (-1 is a range); export it again"
            )


def _configure(config: trt.IBuilderConfig, library: Library, options: BuildOptions) -> None:
    if not TYPE_CHECKING:
        trt = library.module
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimisation_level is not None:
        config.builder_optimization_level = options.optimisation_level
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        # On by default in both libraries; FP32 is to mean FP32.
        config.clear_flag(trt.BuilderFlag.TF32)


def _add_profile(
    config: trt.IBuilderConfig,
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    manifest: Manifest,
) -> None:
    """One optimisation profile where the batch is a range."""
    if manifest.batch_range is None:
        return
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        low, usual, high = ((batch, *rest) for batch in manifest.batch_range)
        profile.set_shape(tensor.name, low, usual, high)
    config.add_optimization_profile(profile)


def _layer_types(network: trt.INetworkDefinition, library: Library) -> tuple[dict[str, int], int]:
    """Types that the weighted layers answer in, and the number of Q nodes.

    Products of two computed tensors are no weights' layers: NMS multiplies its 0/1 matrix in
    half precision at every precision of the network.
    """
    if not TYPE_CHECKING:
        trt = library.module
    kinds = trt.LayerType
    products, constant = kinds.MATRIX_MULTIPLY, kinds.CONSTANT
    heavy = {kinds.CONVOLUTION, kinds.DECONVOLUTION, products}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    constants = {layer.get_output(0).name for layer in layers if layer.type == constant}
    found: Counter[str] = Counter()
    for layer in layers:
        if layer.type not in heavy:
            continue
        inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
        has_weights = any(t is not None and t.name in constants for t in inputs)
        if layer.type == products and not has_weights:
            continue
        found[_type_name(layer.get_output(0).dtype)] += 1
    quantize = sum(layer.type == kinds.QUANTIZE for layer in layers)
    return dict(found), quantize


def _tensors(network: trt.INetworkDefinition) -> tuple[TensorInfo, ...]:
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return tuple(
        TensorInfo(
            tensor.name,
            "input" if tensor in inputs else "output",
            _type_name(tensor.dtype),
            tuple(tensor.shape),
        )
        for tensor in [*inputs, *outputs]
    )


def _type_name(dtype: trt.DataType) -> str:
    name = str(dtype.name)
    return TYPE_NAMES.get(name, name.lower())


def _monitor(library: Library, progress: BuildProgress) -> trt.IProgressMonitor:
    if not TYPE_CHECKING:
        trt = library.module

    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.phase_start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            progress.phase_finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step_complete(phase_name, step)

    return _Monitor()


def _interruptible(work: Callable[[], Any], progress: BuildProgress) -> Any:
    """Run in a thread, so that Ctrl-C reaches us and not one of the library's callbacks.

    An exception that passes through native code would end the interpreter.
    """
    answers: list[Any] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            answers.append(work())
        except BaseException as error:  # handed to the caller below
            failures.append(error)
        finally:
            finished.set()

    finished, interrupted = threading.Event(), False
    thread = threading.Thread(target=body, name="engine build")
    thread.start()
    # Not join(): Python 3.11 takes a thread for ended when its join is interrupted.
    while not finished.is_set():
        try:
            finished.wait(0.1)
        except KeyboardInterrupt:
            interrupted = progress.cancelled = True
    thread.join()
    if interrupted:
        raise KeyboardInterrupt
    if failures:
        raise failures[0]
    return answers[0]
