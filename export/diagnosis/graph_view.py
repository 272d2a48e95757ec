"""An ONNX graph for the rules: every node, small constants, element types."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

_ONNX_DOMAINS = ("", "ai.onnx")
# The rules read K of TopK and per-channel zero points; nothing larger.
_MAX_CONSTANT_BYTES = 2**20


class GraphView:
    """All nodes, including those of subgraphs and functions, with known input values and types."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = max((o.version for o in model.opset_import if _is_onnx(o.domain)), default=0)
        self.functions = {(f.domain, f.name) for f in model.functions}
        self._graphs = list(_graphs(model.graph))
        self.nodes = [node for graph in self._graphs for node in graph.node]
        for function in model.functions:
            for node in function.node:
                self.nodes.append(node)
                self.nodes += [n for g in _bodies(node) for inner in _graphs(g) for n in inner.node]
        self._tensors = {t.name: t for graph in self._graphs for t in graph.initializer}
        for node in self.nodes:
            value = attribute(node, "value")
            if node.op_type == "Constant" and node.output and isinstance(value, onnx.TensorProto):
                self._tensors[node.output[0]] = value

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The graph's inputs, without the weights that old files list there too."""
        return [v for v in self.model.graph.input if v.name not in self._tensors]

    def named(self, *operators: str) -> list[onnx.NodeProto]:
        """Nodes of these standard ONNX operators."""
        return [n for n in self.nodes if n.op_type in operators and _is_onnx(n.domain)]

    def constant(self, node: onnx.NodeProto, index: int) -> npt.NDArray[Any] | None:
        """The value of an input, if it is a small constant inside the file."""
        tensor = self._tensors.get(_input(node, index))
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        if tensor.ByteSize() > _MAX_CONSTANT_BYTES:
            return None
        try:
            values = np.asarray(numpy_helper.to_array(tensor))
        except Exception:  # a damaged tensor, which the checker reports
            return None
        return None if values.dtype.kind in "OSU" else values

    def element_type(self, node: onnx.NodeProto, index: int) -> str | None:
        """Type of an input, like "FLOAT16", inferred if the file does not declare it."""
        name = _input(node, index)
        code = self._types.get(name) or self._inferred_types.get(name)
        types = onnx.TensorProto.DataType
        # A damaged file may contain an unknown type code.
        return types.Name(code) if code and code in types.values() else None

    @cached_property
    def _types(self) -> dict[str, int]:
        types = {name: tensor.data_type for name, tensor in self._tensors.items()}
        for graph in self._graphs:
            types |= _declared_types(graph)
        return types

    @cached_property
    def _inferred_types(self) -> dict[str, int]:
        try:
            inferred = onnx.shape_inference.infer_shapes(self.model)
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
            return {}  # the checker reports such a graph
        types: dict[str, int] = {}
        for graph in _graphs(inferred.graph):
            types |= _declared_types(graph)
        return types


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """An attribute's value, or None."""
    for entry in node.attribute:
        if entry.name == name and entry.type != onnx.AttributeProto.UNDEFINED:
            return onnx.helper.get_attribute_value(entry)
    return None


def dynamic_axes(value: onnx.ValueInfoProto) -> list[int]:
    """Axes without a fixed size."""
    sides = value.type.tensor_type.shape.dim
    return [axis for axis, side in enumerate(sides) if not side.HasField("dim_value")]


def _is_onnx(domain: str) -> bool:
    return domain in _ONNX_DOMAINS


def _input(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if index < len(node.input) else ""


def _declared_types(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: v.type.tensor_type.elem_type for v in values if v.type.HasField("tensor_type")}


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in _bodies(node):
            yield from _graphs(body)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for entry in node.attribute:
        if entry.type == onnx.AttributeProto.GRAPH:
            yield entry.g
        yield from entry.graphs
