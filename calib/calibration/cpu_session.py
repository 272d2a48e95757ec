"""A graph in memory, opened by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from model.errors import ArtifactError, in_brief
from runtime.whole_numbers import require_threads


def open_on_cpu(model: ir.Model, threads: int | None, *, for_inner_tensors: bool = False) -> Any:
    """An `onnxruntime.InferenceSession`.

    Memory is given back after each run: an arena, or a plan for each size of photo, would keep
    several times the largest photo's.

    Args:
        model: left as it is; at most 2 GiB, what one message holds.
        threads: of the CPU; None takes all cores.
        for_inner_tensors: most tensors are outputs. There is little left to merge then, and the
            time is saved.

    Raises:
        ArtifactError: ONNX Runtime refuses the graph.
        UsageError: that is no number of threads.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # A Shape is taken as soon as it can be: in the graph's order, last, it would keep its tensor.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if for_inner_tensors:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if threads is not None:
        require_threads(threads)
        options.intra_op_num_threads = threads
    data = ir.serde.serialize_model(model).SerializeToString()
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a type of its own per status code
        raise ArtifactError(
            f"calibration: ONNX Runtime refuses the graph ({in_brief(error)}); export it again"
        ) from error


def run_on_cpu(
    session: Any, outputs: Sequence[str] | None, feed: Mapping[str, npt.NDArray[Any]]
) -> list[Any]:
    """What a session of `open_on_cpu` answers; None asks for all outputs.

    Raises:
        ArtifactError: ONNX Runtime failed.
    """
    try:
        answers: list[Any] = session.run(outputs, dict(feed))
    except Exception as error:  # a type of its own per status code
        raise ArtifactError(
            f"calibration: ONNX Runtime failed ({in_brief(error)}); "
            "if memory ran out, use smaller photos"
        ) from error
    return answers
