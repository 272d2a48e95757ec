"""Emulate a graph in half precision by a float32 graph, tensor by tensor.

ONNX Runtime on a CPU cannot serve as the reference: it removes casts, computes FP16 in float32, and
has no BF16 convolution. Here every tensor that is declared half is rounded arithmetically where it
is produced; sums inside an operator are float32, as on a GPU's matrix units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.precision.formats import FORMATS, HalfFormat
from export.precision.linear_layers import products
from export.precision.ranges import HalfTensor, write_statistics
from export.precision.rounding import write_rounding
from export.roles import ROLE_KEY
from model.errors import ExportError

RANGES_OUTPUT = "maskport.ranges"
# Their output values are input values, so halves stay halves.
_EXACT = frozenset(
    (
        "Abs", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Max",
        "MaxPool", "Min", "Neg", "Pad", "Relu", "Reshape", "Slice", "Split", "Squeeze",
        "Transpose", "Unsqueeze", "Where",
    )
)  # fmt: skip
_HALVES = {int(half.type): half for half in FORMATS.values()}
# ONNX Runtime 1.31 has no RoiAlign kernel for opset 22; in opset 21 ours is defined the same.
_RUNNABLE_OPSET = 21


@dataclass(frozen=True, slots=True)
class Emulation:
    """A float32 graph, and the tensors that it rounds, in order.

    With `ranges` the graph also has the output `maskport.ranges`, float32 [5 * tensors].
    """

    model: onnx.ModelProto
    tensors: tuple[HalfTensor, ...]


def emulate(model: onnx.ModelProto, ranges: bool = False) -> Emulation:
    """Rewrite a typed graph.

    1. Half weights and constants become float32, with the same values.
    2. Every half output of a node is rounded, unless the node only copies halves.
    3. Casts to a half become casts to float32.
    4. Linear layers become matrix products again, which are faster on a CPU.

    Args:
        model: declares the type of every half tensor; not changed.
        ranges: also measure every tensor before rounding.

    Raises:
        ExportError: half precision inside a subgraph.
    """
    emulated = onnx.ModelProto()
    emulated.CopyFrom(model)
    graph, halves = emulated.graph, _half_tensors(model)
    products(emulated)
    nodes, writer = list(graph.node), _Writer()
    for tensor in graph.initializer:
        _widen(tensor)
    for info in (*graph.value_info, *graph.output):
        if info.type.tensor_type.elem_type in _HALVES:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    tensors: list[HalfTensor] = []
    measured: list[str] = []
    for node in nodes:
        _widen_node(node)
        rounds = node.op_type not in (*_EXACT, "Constant")
        rounded = {name: halves[name] for name in node.output if name in halves and rounds}
        for index, name in enumerate(node.output):
            if name in rounded:
                node.output[index] = f"{name}.unrounded"
        writer.nodes.append(node)
        for name, half in rounded.items():
            magnitude = _round(writer, name, half)
            if ranges:
                measured += write_statistics(writer.emit, writer.constant, magnitude, half)
            tensors.append(HalfTensor(name, _role(node), node.op_type, half.name))
    if measured:
        writer.nodes.append(helper.make_node("Concat", measured, [RANGES_OUTPUT], axis=0))
        info = helper.make_tensor_value_info(RANGES_OUTPUT, TensorProto.FLOAT, None)
        graph.output.append(info)
    del graph.node[:]
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.constants.values())
    _lower_opset(emulated)
    return Emulation(emulated, tuple(tensors))


def _round(writer: _Writer, name: str, half: HalfFormat) -> str:
    """Round `name.unrounded` into `name`; returns the name of its magnitude."""
    unrounded = f"{name}.unrounded"
    magnitude, _ = write_rounding(writer.emit, writer.constant, unrounded, half)
    writer.nodes[-1].output[0] = name
    return magnitude


class _Writer:
    """Collects nodes, and constants without duplicates."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[str, bytes], onnx.TensorProto] = {}

    def emit(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"maskport.emulated.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, values: npt.NDArray[Any]) -> str:
        key = (f"{values.dtype}{values.shape}", values.tobytes())
        if key not in self.constants:
            name = f"maskport.constant.{len(self.constants)}"
            self.constants[key] = numpy_helper.from_array(values, name)
        return self.constants[key].name


def _half_tensors(model: onnx.ModelProto) -> dict[str, HalfFormat]:
    """Every tensor that is declared half, by name; refuses missing types and half subgraphs."""
    graph = model.graph
    known = {i.name: i.type.tensor_type.elem_type for i in (*graph.value_info, *graph.output)}
    outputs = {name for node in graph.node for name in node.output if name}
    if not outputs <= set(known):
        inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
        known |= {info.name: info.type.tensor_type.elem_type for info in inferred}
    for name in sorted(outputs - set(known)):
        raise ExportError(f"emulator: tensor '{name}' has no known type; export the file again")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH and _has_halves(attribute.g):
                raise ExportError(
                    f"emulator: {node.op_type} '{node.name}': half precision in a subgraph is not "
                    "supported; move the node out of it"
                )
    return {name: _HALVES[dtype] for name, dtype in known.items() if dtype in _HALVES}


def _has_halves(graph: onnx.GraphProto) -> bool:
    typed = [info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.output)]
    constants = [tensor.data_type for tensor in graph.initializer]
    casts = [a.i for node in graph.node for a in node.attribute if a.name == "to"]
    return any(dtype in _HALVES for dtype in (*typed, *constants, *casts))


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _HALVES:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _widen_node(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            _widen(attribute.t)
        elif attribute.name == "to" and attribute.i in _HALVES:
            attribute.i = TensorProto.FLOAT


def _lower_opset(model: onnx.ModelProto) -> None:
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = min(entry.version, _RUNNABLE_OPSET)


def _role(node: onnx.NodeProto) -> str:
    return next((p.value for p in node.metadata_props if p.key == ROLE_KEY), "")
