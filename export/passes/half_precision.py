"""Convert a float32 graph to half precision by the rules of `export.precision.policy`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from export.precision.formats import HalfFormat, is_lost, round_weight
from export.precision.policy import data_inputs, half_nodes, is_constant
from export.roles import ROLE_KEY, role_of

# Their output depends only on the shape; they accept any type.
_ANY_TYPE = ("Shape", "Size")


@dataclass(frozen=True, slots=True)
class HalfReport:
    """Summary of the conversion.

    `nodes` counts the nodes in half precision by role; `lost` lists weights that lose more than
    rounding explains, each with the lost fraction of its norm.
    """

    half: HalfFormat
    nodes: dict[str, int]
    casts: int
    lost: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        lost = "".join(f" · weight '{n}' loses {100 * s:.1f} %" for n, s in self.lost)
        count = sum(self.nodes.values())
        return f"{self.half.title}: {count} layers in half precision, {self.casts} casts{lost}"


def half_precision(model: ir.Model, half: HalfFormat) -> HalfReport:
    """Rewrite the graph.

    1. The outputs of the policy's nodes, and the weights that they read, become half precision.
    2. A weight that other nodes also read is stored twice.
    3. A tensor that is needed in the other type is cast once, behind its producer.

    Args:
        model: float32, tagged by `tag_roles`; changed in place. Its inputs and outputs stay
            float32.
        half: the format.

    Raises:
        ExportError: a weight exceeds the range of the format.
    """
    _fill_types(model)
    graph = model.graph
    nodes = half_nodes(graph, half)
    converted = [(node, data_inputs(node)) for node in graph if node in nodes]
    writer = _Writer(graph, half, nodes)
    for node, _ in converted:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.type = ir.TensorType(half.type)  # a type object may be shared
    for node, inputs in converted:
        for index, value in inputs:
            node.replace_input_with(index, writer.as_half(value))
    for node, _ in converted:
        for value in node.outputs:
            writer.cast_back(value)
    writer.drop_unused()
    by_role = Counter(role_of(node) for node, _ in converted)
    return HalfReport(half, dict(by_role), writer.casts, tuple(writer.lost))


def _fill_types(model: ir.Model) -> None:
    """Set missing element types by ONNX's inference; its shapes are ignored."""
    missing = [v for node in model.graph for v in node.outputs if v.dtype is None and v.name]
    if not missing:
        return
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model)).graph.value_info
    types = {info.name: info.type.tensor_type.elem_type for info in inferred}
    for value in missing:
        if types.get(str(value.name)):
            value.dtype = ir.DataType(types[str(value.name)])


class _Writer:
    """Converts each tensor to half precision once."""

    def __init__(self, graph: ir.Graph, half: HalfFormat, nodes: set[ir.Node]) -> None:
        self._graph, self._half, self._nodes = graph, half, nodes
        self._halves: dict[ir.Value, ir.Value] = {}
        self.casts = 0
        self.lost: list[tuple[str, float]] = []

    def as_half(self, value: ir.Value) -> ir.Value:
        """The same tensor in half precision."""
        if value.dtype == self._half.type:
            return value
        if value not in self._halves:
            convert = self._weight if is_constant(value) else self._cast_down
            self._halves[value] = convert(value)
        return self._halves[value]

    def _weight(self, value: ir.Value) -> ir.Value:
        tensor = ir.convenience.get_const_tensor(value)
        assert tensor is not None
        numbers, fraction = round_weight(str(value.name), tensor.numpy(), self._half)
        # Biases are excluded: the range check covers the activations that they are added to.
        if is_lost(fraction) and numbers.ndim > 1:
            self.lost.append((str(value.name), fraction))
        name = f"{value.name}.{self._half.name}"
        rounded = ir.Value(
            name=name,
            shape=ir.Shape(numbers.shape),
            type=ir.TensorType(self._half.type),
            const_value=ir.tensor(numbers, self._half.type, name=name),
        )
        self._graph.register_initializer(rounded)
        return rounded

    def _cast_down(self, value: ir.Value) -> ir.Value:
        cast = self._cast(value, self._half.type, self._half.name)
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(producer, cast)
        return cast.outputs[0]

    def cast_back(self, value: ir.Value) -> None:
        """Cast a tensor back to float32 for its consumers outside the policy."""
        others = [
            (user, index)
            for user, index in value.uses()
            if user not in self._nodes and user.op_type not in _ANY_TYPE
        ]
        producer = value.producer()
        if value.dtype != self._half.type or not others or producer is None:
            return
        cast = self._cast(value, ir.DataType.FLOAT, "fp32")
        self._graph.insert_after(producer, cast)
        for user, index in others:
            user.replace_input_with(index, cast.outputs[0])

    def _cast(self, value: ir.Value, dtype: ir.DataType, suffix: str) -> ir.Node:
        node = ir.node("Cast", [value], {"to": dtype}, name=f"{value.name}.{suffix}.cast")
        producer = value.producer()
        node.metadata_props[ROLE_KEY] = "normalise" if producer is None else role_of(producer)
        output = node.outputs[0]
        output.name, output.dtype, output.shape = f"{value.name}.{suffix}", dtype, value.shape
        self.casts += 1
        return node

    def drop_unused(self) -> None:
        """Remove float32 weights without other readers; their halves take over the names."""
        for value, half in self._halves.items():
            if value.uses():
                continue
            producer = value.producer()
            if producer is not None and producer.op_type == "Constant":
                self._graph.remove(producer, safe=True)
            elif value.is_initializer():
                self._graph.initializers.pop(str(value.name))
                half.name = value.name


def fill_types(model: ir.Model) -> bool:
    """Set missing types by ONNX's type inference; returns whether one was missing.

    Shapes stay unchanged: the tracer's shapes contain its own size names.
    """
    missing = [v for node in model.graph for v in node.outputs if v.dtype is None and v.name]
    if not missing:
        return False
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model)).graph.value_info
    types = {info.name: info.type.tensor_type.elem_type for info in inferred}
    for value in missing:
        if types.get(str(value.name)):
            value.dtype = ir.DataType(types[str(value.name)])
    return True
