"""The writers by name: where Q/DQ pairs go, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from calib.graph.formats import Format, Ranges
from calib.graph.layers import Layer
from calib.graph.placement import Placement, place_for_onnxruntime, place_for_tensorrt
from calib.options import QuantizeOptions
from calib.rounding.weights import WeightQuantizer
from calib.writers.onnxruntime import write_for_onnxruntime
from calib.writers.tensorrt import write_for_tensorrt
from model.errors import UsageError, require_one_of

Place = Callable[[ir.Graph, Sequence[Layer]], Placement]
Write = Callable[[ir.Graph, Placement, Format, Ranges, WeightQuantizer], None]


@dataclass(frozen=True, slots=True)
class Writer:
    """Where pairs go, and how they are written."""

    place: Place
    write: Write


WRITERS: Mapping[str, Writer] = {
    "tensorrt": Writer(place_for_tensorrt, write_for_tensorrt),
    "onnxruntime": Writer(place_for_onnxruntime, write_for_onnxruntime),
}
# By export target.
_OF_TARGET = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt"}


def writer_for(target: str, options: QuantizeOptions) -> str:
    """The name of the writer in the options, else of the file's target.

    Raises:
        UsageError: no such writer, or a format that it cannot write.
    """
    name = options.writer or _OF_TARGET.get(target, "tensorrt")
    require_one_of("--qdq-placement", name, WRITERS)
    if name == "onnxruntime" and (options.format, options.float_type) != ("int8", "fp32"):
        raise UsageError(
            f"--format {options.format} --float-type {options.float_type}: on a CPU, ONNX Runtime "
            "has kernels only for int8 with fp32; use --qdq-placement tensorrt"
        )
    return name


def tensors_to_observe(graph: ir.Graph, layers: Sequence[Layer]) -> list[str]:
    """The tensors whose range any writer may need, so that one table serves all writers."""
    names: dict[str, None] = {}
    for writer in WRITERS.values():
        names |= {str(v.name): None for v in writer.place(graph, layers).ranges}
    return list(names)
