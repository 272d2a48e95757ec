"""What became of a quantised graph: integer kernels, and the share of the arithmetic in INT8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from calib.calibration.cpu_session import open_on_cpu, run_on_cpu
from calib.graph.layers import Layer
from model.errors import ArtifactError, in_brief
from runtime.preprocessing.canvas import Canvas
from runtime.whole_numbers import require_threads

_INTEGER = ("QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger")
_INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")
_FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")


@dataclass(frozen=True, slots=True)
class Kernels:
    """Nodes of the graph as ONNX Runtime will run it."""

    integer_convolutions: int
    float_convolutions: int
    integer_products: int

    def __str__(self) -> str:
        total = self.integer_convolutions + self.float_convolutions
        return (
            f"{self.integer_convolutions} of {total} convolutions and {self.integer_products} "
            "linear layers are integer kernels"
        )


def count_kernels(path: Path, threads: int | None = None) -> Kernels:
    """Let ONNX Runtime optimise a file for this CPU and count its convolutions.

    Args:
        path: the file.
        threads: of the CPU; None takes all cores.

    Raises:
        ArtifactError: ONNX Runtime cannot open it.
        UsageError: that is no number of threads.
    """
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        require_threads(threads)
        options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(optimised)
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a type of its own per status code
            raise ArtifactError(
                f"{path}: ONNX Runtime cannot open it ({in_brief(error)}); export it again"
            ) from error
        kinds = [node.op_type for node in onnx.load(optimised).graph.node]
    return Kernels(
        sum(kind in _INTEGER_CONVOLUTIONS for kind in kinds),
        sum(kind in _FLOAT_CONVOLUTIONS for kind in kinds),
        sum(kind in _INTEGER for kind in kinds) - sum(k in _INTEGER_CONVOLUTIONS for k in kinds),
    )


def multiply_adds(layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Of one run of a layer.

    Args:
        layer: any weighted one.
        shapes: of what it reads and answers in that run, by tensor.
    """
    weights = layer.weights.shape
    if layer.node.op_type == "Gemm":
        return int(shapes[str(layer.output.name)][0]) * int(np.prod(weights))
    if layer.node.op_type == "ConvTranspose":
        # Every input pixel meets its group's kernels once: weights are [C, outputs / groups, …].
        n, _, *sides = shapes[str(layer.data.name)]
        return int(n * np.prod(sides) * np.prod(weights))
    n, _, *sides = shapes[str(layer.output.name)]
    # Weights are [outputs, inputs / groups, …] already.
    return int(n * np.prod(sides) * np.prod(weights))


def shapes_in_runs(
    model: ir.Model, names: list[str], canvases: Iterable[Canvas], threads: int | None = None
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes of inner tensors, by running a copy of the graph that answers them.

    Args:
        model: left as it is.
        names: float32 tensors.
        canvases: a batch per run.
        threads: of the CPU; None takes all cores.

    Yields:
        the shapes of one run, by name.

    Raises:
        ArtifactError: ONNX Runtime refuses the graph, or failed.
    """
    copy = model.clone()
    values = {v.name: v for v in copy.graph.inputs}
    values |= {v.name: v for node in copy.graph for v in node.outputs}
    made: list[ir.Value] = []
    for name in names:
        node = ir.node("Shape", [values[name]])
        node.outputs[0].dtype = ir.DataType.INT64
        copy.graph.append(node)
        made.append(node.outputs[0])
    copy.graph.outputs[:] = made
    session = open_on_cpu(copy, threads, for_inner_tensors=True)
    known = {value.name for value in session.get_inputs()}
    for canvas in canvases:
        feed: dict[str, Any] = {"images": canvas.images, "image_hw": canvas.image_hw}
        answers = run_on_cpu(session, None, {k: v for k, v in feed.items() if k in known})
        yield {n: tuple(int(s) for s in a) for n, a in zip(names, answers, strict=True)}
