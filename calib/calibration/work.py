"""Multiply-adds by layer, and the integer kernels of a written file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from calib.calibration.cpu_session import cpu_options, open_on_cpu, run_on_cpu
from calib.graph.layers import Layer
from model.errors import ArtifactError, in_brief
from runtime.preprocessing.canvas import Canvas

_INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")
_INTEGER_PRODUCTS = ("QGemm", "QLinearMatMul", "MatMulInteger")
_FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")


@dataclass(frozen=True, slots=True)
class Kernels:
    """Nodes of the graph after ONNX Runtime's optimizations."""

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
    """Let ONNX Runtime optimize a file for this CPU and count its kernels.

    Args:
        path: the file.
        threads: of the CPU; None takes all cores.

    Raises:
        ArtifactError: ONNX Runtime cannot open it.
        UsageError: not a number of threads.
    """
    import onnx
    import onnxruntime as ort

    options = cpu_options(threads)
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a type of its own per status code
            raise ArtifactError(
                f"{path}: ONNX Runtime cannot open it ({in_brief(error)}); export it again"
            ) from error
        op_types = [node.op_type for node in onnx.load(optimized).graph.node]
    kernels = (_INTEGER_CONVOLUTIONS, _FLOAT_CONVOLUTIONS, _INTEGER_PRODUCTS)
    return Kernels(*(sum(op_type in names for op_type in op_types) for names in kernels))


def multiply_adds(layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Of one run of a layer.

    Args:
        layer: any weighted one.
        shapes: of its input and output in that run, by tensor.
    """
    weights = layer.weights.shape
    if layer.node.op_type == "Gemm":
        return int(shapes[str(layer.output.name)][0]) * int(np.prod(weights))
    # Weights are [outputs, inputs / groups, …]; of a deconvolution, whose input pixels each meet
    # the kernels of their group once, [inputs, outputs / groups, …].
    is_transposed = layer.node.op_type == "ConvTranspose"
    n, _, *sides = shapes[str((layer.data if is_transposed else layer.output).name)]
    return int(n * np.prod(sides) * np.prod(weights))


def shapes_in_runs(
    model: ir.Model, names: list[str], canvases: Iterable[Canvas], threads: int | None = None
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes of inner tensors, from a copy of the graph that returns them.

    Args:
        model: not changed.
        names: of float32 tensors.
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
    outputs: list[ir.Value] = []
    for name in names:
        node = ir.node("Shape", [values[name]])
        node.outputs[0].dtype = ir.DataType.INT64
        copy.graph.append(node)
        outputs.append(node.outputs[0])
    copy.graph.outputs[:] = outputs
    session = open_on_cpu(copy, threads, for_inner_tensors=True)
    known = {value.name for value in session.get_inputs()}
    for canvas in canvases:
        inputs: dict[str, Any] = {"images": canvas.images, "image_hw": canvas.image_hw}
        shapes = run_on_cpu(session, None, {k: v for k, v in inputs.items() if k in known})
        yield {n: tuple(int(s) for s in shape) for n, shape in zip(names, shapes, strict=True)}
