"""One builder for both libraries: parse, check the types, configure, compile.

Uses only the API that TensorRT 10.12, TensorRT 11 and TensorRT-RTX share; the adapters hold the
differences.
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

# mypy checks against TensorRT's stubs (`make typecheck-tensorrt`); at run time the bindings are the
# adapter's, hence `trt = library.module` at the top of functions.
if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled engine with its tensors, layer types and warnings.

    `layer_types` counts convolutions and matrix products by output type.
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
        graph: a serialized ONNX model.
        manifest: of that model; sets the precision and the batch range.
        architecture: like "sm89".
        options: of the build.
        progress: display; an interrupt stops the build at the next step.

    Raises:
        EngineBuildError: the parser or the builder failed, or the parsed network does not have the
            precision of the manifest.
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
        plan, _tensors(network), layer_types, quantize_layers, tuple(messages.warnings), seconds
    )


def check_precision(precision: str, layer_types: dict[str, int], quantize_layers: int) -> None:
    """Reject a network whose layer types do not match its manifest.

    Args:
        precision: of the manifest: fp32, fp16, bf16, or int8 plus a float type.
        layer_types: type → number of convolutions and matrix products with that output type.
        quantize_layers: number of Q nodes.

    Raises:
        EngineBuildError: the expected type is missing, or an FP32 network has another one.
    """
    expected = {"fp16": "float16", "bf16": "bfloat16"}.get(precision)
    counts = ", ".join(f"{n} {dtype}" for dtype, n in sorted(layer_types.items())) or "none"
    others = set(layer_types) - {"float32"}
    if precision == "fp32" and (others or quantize_layers):
        raise EngineBuildError(
            f"precision fp32: expected every convolution in float32, got {counts} and "
            f"{quantize_layers} Q nodes; export the graph again"
        )
    if expected is not None and 2 * layer_types.get(expected, 0) < sum(layer_types.values()):
        raise EngineBuildError(
            f"precision {precision}: expected most convolutions in {expected}, got {counts}; "
            "export the graph again"
        )
    if precision.startswith(("int8", "fp8")) and quantize_layers == 0:
        raise EngineBuildError(
            f"precision {precision}: the network has no Q nodes; quantize it again"
        )


def _check_inputs(network: trt.INetworkDefinition, manifest: Manifest) -> None:
    """Reject a graph whose input sizes differ from its metadata, which the runtime relies on."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in inputs:
        shape = tuple(tensor.shape)
        batch = -1 if manifest.batch_range is not None else manifest.batch
        expected = (batch, 3, manifest.height, manifest.width)
        if tensor.name == "images" and shape != expected:
            raise EngineBuildError(
                f"images: expected {list(expected)} by the file's metadata, got {list(shape)} in "
                "its graph (-1: a range); export it again"
            )


def _configure(config: trt.IBuilderConfig, library: Library, options: BuildOptions) -> None:
    if not TYPE_CHECKING:
        trt = library.module
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        # On by default in both libraries; FP32 shall mean FP32.
        config.clear_flag(trt.BuilderFlag.TF32)


def _add_profile(
    config: trt.IBuilderConfig,
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    manifest: Manifest,
) -> None:
    """Add an optimization profile if the batch is a range."""
    if manifest.batch_range is None:
        return
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        sizes = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((batch, *sizes) for batch in manifest.batch_range))
    config.add_optimization_profile(profile)


def _layer_types(network: trt.INetworkDefinition, library: Library) -> tuple[dict[str, int], int]:
    """Output types of the layers with weights, and the number of Q nodes.

    Products of two computed tensors do not count: NMS multiplies 0/1 matrices in half precision
    at every precision of the network.
    """
    if not TYPE_CHECKING:
        trt = library.module
    types = trt.LayerType
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    constants = {layer.get_output(0).name for layer in layers if layer.type == types.CONSTANT}

    def has_weights(layer: trt.ILayer) -> bool:
        if layer.type != types.MATRIX_MULTIPLY:
            return layer.type in (types.CONVOLUTION, types.DECONVOLUTION)
        inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
        return any(t is not None and t.name in constants for t in inputs)

    counts = Counter(_type_name(x.get_output(0).dtype) for x in layers if has_weights(x))
    return dict(counts), sum(layer.type == types.QUANTIZE for layer in layers)


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
    """Run in a thread, so that Ctrl-C is raised here and not in a callback of the library.

    An exception that passes through native code would end the interpreter.
    """
    results: list[Any] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again below
            failures.append(error)
        finally:
            finished.set()

    finished, interrupted = threading.Event(), False
    thread = threading.Thread(target=body, name="engine build")
    thread.start()
    # Not join(): Python 3.11 treats a thread as finished when its join is interrupted.
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
    return results[0]
