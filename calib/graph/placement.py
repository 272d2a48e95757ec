"""Where the two writers put Q/DQ pairs, as data: which reads of which tensor go through one.

`tensorrt`, by facts of its fusions:
1. the data input of every quantised layer;
2. the identity input of a residual Add whose branch is a quantised layer;
3. the upsampled input of a pyramid's Add whose lateral is a quantised layer;
4. one pair per tensor, which all of these readers share; none on outputs, so that a layer, its
   Add and its ReLU become one kernel.

`onnxruntime`, where an integer kernel needs integers on both sides:
1. the data input of every quantised layer and, after its ReLU if it has one, its output;
2. both inputs and the output of an Add whose inputs are all answered by integer kernels;
3. the output of MaxPool and of nearest Resize, with the scale of the input;
4. no output of a linear layer that only predictors read: that kernel answers floats as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from calib.graph.layers import Layer
from export.roles import role_of

_RESIDUAL_ROLES = ("body", "roi_stage")
_PYRAMID_ROLE = "fpn"
_POOL_ROLES = ("box_pool", "mask_pool", "keypoint_pool")
# Their answers are numbers that they read.
_SELECTING = ("MaxPool", "Resize", "Reshape", "Flatten", "Compress", "Transpose", "Cast")

Use = tuple[ir.Node, int]


@dataclass(slots=True, eq=False)
class Site:
    """One Q/DQ pair: the tensor, and the reads that go through it.

    `range_of` is the tensor whose range it takes; `is_signed` is whether it holds negatives.
    """

    value: ir.Value
    range_of: ir.Value
    is_signed: bool
    uses: list[Use] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Placement:
    """The layers whose weights become integers, and every pair on activations."""

    layers: tuple[Layer, ...]
    sites: tuple[Site, ...]

    @property
    def ranges(self) -> list[ir.Value]:
        """The tensors whose range must be known, each once."""
        return list({site.range_of: None for site in self.sites})


def place_for_tensorrt(graph: ir.Graph, layers: Collection[Layer]) -> Placement:
    """Pairs on what quantised layers read, and on the identity side of Adds."""
    sites = _Sites()
    by_node = {layer.node: layer for layer in layers}
    depths = depths_of(graph)
    for node in graph:
        if node in by_node:
            sites.add(by_node[node].data, (node, 0))
        identity = identity_input(node, depths)
        if identity is not None and _answered_by(node.inputs[1 - identity], by_node):
            value = node.inputs[identity]
            assert value is not None
            sites.add(value, (node, identity))
    return Placement(tuple(layers), sites.in_order())


def place_for_onnxruntime(
    graph: ir.Graph, layers: Collection[Layer], *, integer_adds: bool = True
) -> Placement:
    """Pairs round everything that becomes an integer kernel.

    Args:
        graph: in topological order.
        layers: those to quantise; deconvolutions, of which there is no integer kernel, are left.
        integer_adds: False keeps the Adds, and with them the residual stream, in floating point.
    """
    quantised = tuple(layer for layer in layers if layer.node.op_type != "ConvTranspose")
    by_node = {layer.node: layer for layer in quantised}
    sites = _Sites()
    answered: set[ir.Value] = set()  # by integer kernels
    for node in graph:
        if node in by_node:
            sites.add(by_node[node].data, (node, 0))
            answers_integers = not _only_predictors_read(node, by_node)
        elif is_add(node):
            answers_integers = integer_adds and all(v in answered for v in node.inputs)
        else:
            answers_integers = _is_selecting_kernel(node) and node.inputs[0] in answered
        if answers_integers:
            answered.add(_quantise_output(node, sites))
    return Placement(quantised, sites.in_order())


def identity_input(node: ir.Node, depths: Mapping[ir.Value, int]) -> int | None:
    """Which input of a residual or pyramid Add is not the branch; None for any other node.

    Of a residual Add it is the one with fewer weighted layers behind it: the block's input or its
    projection. Of a pyramid's it is the upsampled one.

    Args:
        node: of the graph.
        depths: of `depths_of` that graph.
    """
    if not is_add(node):
        return None
    first, second = node.inputs
    assert first is not None
    assert second is not None
    if role_of(node) == _PYRAMID_ROLE:
        upsampled = [_is_upsampled(v) for v in (first, second)]
        return None if upsampled[0] == upsampled[1] else upsampled.index(True)
    found = depths.get(first, 0), depths.get(second, 0)
    return None if found[0] == found[1] else int(found[1] < found[0])


def depths_of(graph: ir.Graph) -> dict[ir.Value, int]:
    """Weighted layers on the longest way to each tensor of the residual parts."""
    found: dict[ir.Value, int] = {}
    for node in graph:  # in topological order
        if role_of(node) not in _RESIDUAL_ROLES:
            continue
        behind = max((found.get(v, 0) for v in node.inputs if v is not None), default=0)
        depth = behind + (node.op_type in ("Conv", "Gemm"))
        found |= dict.fromkeys(node.outputs, depth)
    return found


def is_add(node: ir.Node) -> bool:
    """Whether it adds two feature maps."""
    if node.op_type != "Add" or role_of(node) not in (*_RESIDUAL_ROLES, _PYRAMID_ROLE):
        return False
    return all(v is not None and v.producer() is not None for v in node.inputs)


def _is_upsampled(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Resize"


def _answered_by(value: ir.Value | None, layers: dict[ir.Node, Layer]) -> bool:
    return value is not None and value.producer() in layers


def _only_predictors_read(node: ir.Node, layers: dict[ir.Node, Layer]) -> bool:
    """Whether a Gemm's answer, after its ReLU, meets no quantised layer."""
    if node.op_type != "Gemm":
        return False
    return not any(reader in layers for reader, _ in _after_relu(node).uses())


def _after_relu(node: ir.Node) -> ir.Value:
    """What a node answers, after the ReLU if that alone reads it: readers merge the two."""
    value = node.outputs[0]
    readers = [reader for reader, _ in value.uses()]
    if len(readers) == 1 and readers[0].op_type == "Relu" and not value.is_graph_output():
        return readers[0].outputs[0]
    return value


def _quantise_output(node: ir.Node, sites: _Sites) -> ir.Value:
    value = _after_relu(node)
    for use in list(value.uses()):
        sites.add(value, (use.node, use.idx))
    return value


def _is_selecting_kernel(node: ir.Node) -> bool:
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    return node.op_type == "MaxPool" and len(node.outputs) == 1


def is_non_negative(value: ir.Value) -> bool:
    """Whether the graph itself says that no number is below zero."""
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softmax"):
        return True
    first = producer.inputs[0] if producer.inputs else None
    return producer.op_type in _SELECTING and first is not None and is_non_negative(first)


def source_of_range(value: ir.Value) -> ir.Value:
    """The tensor whose numbers these are: behind MaxPool, nearest Resize and reshapes.

    Not behind another part of the network, nor inside a pool: rows may be laid out in another way
    there.
    """
    producer = value.producer()
    if producer is None or not _passes_all_on(producer):
        return value
    if role_of(producer) in _POOL_ROLES and producer.op_type != "Cast":
        return value
    source = producer.inputs[0]
    maker = None if source is None else source.producer()
    if source is None or maker is None or role_of(maker) != role_of(producer):
        return value
    return source_of_range(source)


def _passes_all_on(node: ir.Node) -> bool:
    return _is_selecting_kernel(node) or node.op_type in ("Reshape", "Flatten", "Cast")


class _Sites:
    """Sites by tensor, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._by_value: dict[ir.Value, Site] = {}

    def add(self, value: ir.Value, *uses: Use) -> None:
        if value not in self._by_value:
            source = source_of_range(value)
            self._by_value[value] = Site(value, source, not is_non_negative(value))
        site = self._by_value[value]
        site.uses.extend(use for use in uses if use not in site.uses)

    def in_order(self) -> tuple[Site, ...]:
        return tuple(self._by_value.values())
