"""From a graph and a range per tensor to the quantised graph: the writers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from calib.graph.formats import Format
from calib.graph.layers import Layer
from calib.graph.placement import Placement, place_for_onnxruntime, place_for_tensorrt
from calib.options import QuantizeOptions
from calib.rounding.weights import Rounder
from calib.writers.onnxruntime import write_for_onnxruntime
from calib.writers.pairs import Ranges
from calib.writers.tensorrt import write_for_tensorrt
from model.errors import UsageError

Place = Callable[[ir.Graph, Sequence[Layer]], Placement]
Write = Callable[[ir.Graph, Placement, Format, Ranges, Rounder], None]


@dataclass(frozen=True, slots=True)
class Writer:
    """Where pairs go, and how they are written."""

    place: Place
    write: Write


WRITERS: Mapping[str, Writer] = {
    "tensorrt": Writer(place_for_tensorrt, write_for_tensorrt),
    "onnxruntime": Writer(place_for_onnxruntime, write_for_onnxruntime),
}
# What each export target runs on.
_OF_TARGET = {
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt",
}


def writer_for(target: str, options: QuantizeOptions) -> str:
    """The writer's name: the one asked for, else that of the file's target.

    Raises:
        UsageError: no such writer, or a format that it cannot write.
    """
    name = options.writer or _OF_TARGET.get(target, "tensorrt")
    if name not in WRITERS:
        raise UsageError(f"--qdq: expected one of {', '.join(WRITERS)}, got '{name}'")
    if name == "onnxruntime" and (options.format, options.rest) != ("int8", "fp32"):
        raise UsageError(
            f"--format {options.format} --rest {options.rest}: on a CPU ONNX Runtime has kernels "
            "for int8 with fp32 alone; use --qdq tensorrt"
        )
    return name


def tensors_to_observe(graph: ir.Graph, layers: Sequence[Layer]) -> list[str]:
    """What any writer may ask the range of, so that one table serves them all."""
    found: dict[str, None] = {}
    for writer in WRITERS.values():
        found |= {str(v.name): None for v in writer.place(graph, layers).ranges}
    return list(found)
