"""ONNX Runtime on the CPU, for graphs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from model.errors import ArtifactError, in_brief
from runtime.whole_numbers import require_threads


def cpu_options(threads: int | None) -> Any:
    """`onnxruntime.SessionOptions` without log output.

    Raises:
        UsageError: not a number of threads.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        require_threads(threads)
        options.intra_op_num_threads = threads
    return options


def open_on_cpu(model: ir.Model, threads: int | None, *, for_inner_tensors: bool = False) -> Any:
    """An `onnxruntime.InferenceSession`.

    Memory is freed after each run: an arena, or a plan for each photo size, would keep several
    times the memory of the largest photo.

    Args:
        model: not changed; at most 2 GiB, the limit of a protobuf message.
        threads: of the CPU; None takes all cores.
        for_inner_tensors: most tensors are outputs, so only basic optimizations are worth their
            time.

    Raises:
        ArtifactError: ONNX Runtime refuses the graph.
        UsageError: not a number of threads.
    """
    import onnxruntime as ort

    options = cpu_options(threads)
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Runs a Shape node as early as possible; run last, in graph order, it would keep its input.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if for_inner_tensors:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    data = ir.serde.serialize_model(model).SerializeToString()
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a type of its own per status code
        raise ArtifactError(
            f"calibration: ONNX Runtime refuses the graph ({in_brief(error)}); export it again"
        ) from error


def run_on_cpu(
    session: Any, outputs: Sequence[str] | None, inputs: Mapping[str, npt.NDArray[Any]]
) -> list[Any]:
    """The named outputs of a session of `open_on_cpu`; None returns all.

    Raises:
        ArtifactError: ONNX Runtime failed.
    """
    try:
        values: list[Any] = session.run(outputs, dict(inputs))
    except Exception as error:  # a type of its own per status code
        raise ArtifactError(
            f"calibration: ONNX Runtime failed ({in_brief(error)}); "
            "if memory ran out, use smaller photos"
        ) from error
    return values
