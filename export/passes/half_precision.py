"""Write a float32 graph in half precision, as `export.precision.policy` decides it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from export.passes.fill_types import fill_types
from export.precision.formats import HalfFormat, is_lost, round_weight
from export.precision.policy import data_inputs, half_nodes, is_constant
from export.roles import ROLE_KEY, role_of

# They answer about a tensor, not with its numbers, and take any type.
_TYPE_BLIND = ("Shape", "Size")


@dataclass(frozen=True, slots=True)
class HalfReport:
    """What the rewrite did.

    `nodes` counts the nodes in half precision by role; `lost` names the weights of which more is
    lost than rounding takes, each with the lost share of its norm.
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

    1. The answers of the policy's nodes become halves, and the weights that they read.
    2. A weight that others read as well is kept twice.
    3. A tensor that is wanted in the other type is cast once, where it is made, for all that
       want it.

    Args:
        model: float32, tagged by `tag_roles`; changed in place. Its inputs and outputs stay.
        half: the format.

    Raises:
        ExportError: a weight does not fit the format.
    """
    fill_types(model)
    graph = model.graph
    nodes = half_nodes(graph, half)
    wanted = [(node, data_inputs(node)) for node in graph if node in nodes]
    writer = _Writer(graph, half, nodes)
    for node, _ in wanted:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.type = ir.TensorType(half.type)  # a type object may be shared
    for node, inputs in wanted:
        for place, value in inputs:
            node.replace_input_with(place, writer.as_half(value))
    for node, _ in wanted:
        for value in node.outputs:
            writer.cast_back(value)
    writer.drop_unused()
    by_role = Counter(role_of(node) for node, _ in wanted)
    return HalfReport(half, dict(by_role), writer.casts, tuple(writer.lost))


class _Writer:
    """Makes each half of a tensor once."""

    def __init__(self, graph: ir.Graph, half: HalfFormat, nodes: set[ir.Node]) -> None:
        self._graph, self._half, self._nodes = graph, half, nodes
        self._made: dict[ir.Value, ir.Value] = {}
        self.casts = 0
        self.lost: list[tuple[str, float]] = []

    def as_half(self, value: ir.Value) -> ir.Value:
        """The same numbers in half precision."""
        if value.dtype == self._half.type:
            return value
        if value not in self._made:
            make = self._weight if is_constant(value) else self._cast_down
            self._made[value] = make(value)
        return self._made[value]

    def _weight(self, value: ir.Value) -> ir.Value:
        tensor = ir.convenience.get_const_tensor(value)
        assert tensor is not None
        numbers, share = round_weight(str(value.name), tensor.numpy(), self._half)
        # A bias that small is added to activations that small, which the range check counts.
        if is_lost(share) and numbers.ndim > 1:
            self.lost.append((str(value.name), share))
        name = f"{value.name}.{self._half.name}"
        made = ir.Value(
            name=name,
            shape=ir.Shape(numbers.shape),
            type=ir.TensorType(self._half.type),
            const_value=ir.tensor(numbers, self._half.type, name=name),
        )
        self._graph.register_initializer(made)
        return made

    def _cast_down(self, value: ir.Value) -> ir.Value:
        made = self._cast(value, self._half.type, self._half.name)
        producer = value.producer()
        assert made.producer() is not None
        if producer is None:
            self._graph.insert_before(self._graph[0], made.producer())  # type: ignore[arg-type]
        else:
            self._graph.insert_after(producer, made.producer())  # type: ignore[arg-type]
        return made

    def cast_back(self, value: ir.Value) -> None:
        """Give users that compute in float32 what they had."""
        others = [
            (user, place)
            for user, place in value.uses()
            if user not in self._nodes and user.op_type not in _TYPE_BLIND
        ]
        producer = value.producer()
        if value.dtype != self._half.type or not others or producer is None:
            return
        made = self._cast(value, ir.DataType.FLOAT, "fp32")
        self._graph.insert_after(producer, made.producer())  # type: ignore[arg-type]
        for user, place in others:
            user.replace_input_with(place, made)

    def _cast(self, value: ir.Value, dtype: ir.DataType, suffix: str) -> ir.Value:
        node = ir.node("Cast", [value], {"to": dtype}, name=f"{value.name}.{suffix}.cast")
        producer = value.producer()
        node.metadata_props[ROLE_KEY] = "normalise" if producer is None else role_of(producer)
        made = node.outputs[0]
        made.name, made.dtype, made.shape = f"{value.name}.{suffix}", dtype, value.shape
        self.casts += 1
        return made

    def drop_unused(self) -> None:
        """Remove the float32 weights that only half nodes read; their names pass on."""
        for value, made in self._made.items():
            if value.uses():
                continue
            producer = value.producer()
            if producer is not None and producer.op_type == "Constant":
                self._graph.remove(producer, safe=True)
            elif value.is_initializer():
                self._graph.initializers.pop(str(value.name))
                made.name = value.name
