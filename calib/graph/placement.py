"""Where Q/DQ pairs go: which uses of which tensor read through a pair.

`tensorrt`, from its fusions:
1. the data input of every quantized layer;
2. the identity input of a residual Add whose branch is a quantized layer;
3. the upsampled input of a pyramid's Add whose lateral is a quantized layer;
4. one pair per tensor, shared by all of these uses; none on outputs, so that a layer, its Add and
   its ReLU become one kernel.

`onnxruntime`, whose integer kernels need integer inputs and outputs:
1. the data input of every quantized layer and its output, after its ReLU if it has one;
2. both inputs and the output of an Add whose inputs all come from integer kernels;
3. the output of MaxPool and of nearest Resize, with the scale of the input;
4. not the output of a linear layer that only predictors read: its kernel can return floats.
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
# Their output values are input values.
_SELECTING = ("MaxPool", "Resize", "Reshape", "Flatten", "Compress", "Transpose", "Cast")

Use = tuple[ir.Node, int]


@dataclass(slots=True, eq=False)
class Site:
    """One Q/DQ pair: the tensor, and the uses that read through it.

    `range_of` is the tensor whose calibrated range applies; `is_signed`: it may hold negatives.
    """

    value: ir.Value
    range_of: ir.Value
    is_signed: bool
    uses: list[Use] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Placement:
    """The layers whose weights are quantized, and every pair on activations."""

    layers: tuple[Layer, ...]
    sites: tuple[Site, ...]

    @property
    def ranges(self) -> list[ir.Value]:
        """The tensors whose range is needed, each once."""
        return list({site.range_of: None for site in self.sites})


def place_for_tensorrt(graph: ir.Graph, layers: Collection[Layer]) -> Placement:
    """Pairs on the inputs of quantized layers and on the identity side of Adds."""
    sites = _Sites()
    by_node = {layer.node: layer for layer in layers}
    depths = depths_of(graph)
    for node in graph:
        if node in by_node:
            sites.add(by_node[node].data, (node, 0))
        identity = identity_input(node, depths)
        if identity is not None and _is_output_of(node.inputs[1 - identity], by_node):
            value = node.inputs[identity]
            assert value is not None
            sites.add(value, (node, identity))
    return Placement(tuple(layers), sites.in_order())


def place_for_onnxruntime(
    graph: ir.Graph, layers: Collection[Layer], *, integer_adds: bool = True
) -> Placement:
    """Pairs around everything that becomes an integer kernel.

    Args:
        graph: in topological order.
        layers: to quantize; deconvolutions have no integer kernel and are left out.
        integer_adds: False keeps the Adds, and with them the residual stream, in floating point.
    """
    quantized = tuple(layer for layer in layers if layer.node.op_type != "ConvTranspose")
    by_node = {layer.node: layer for layer in quantized}
    sites = _Sites()
    integer_outputs: set[ir.Value] = set()
    for node in graph:
        if node in by_node:
            sites.add(by_node[node].data, (node, 0))
            returns_integers = not _only_predictors_read(node, by_node)
        elif is_add(node):
            returns_integers = integer_adds and all(v in integer_outputs for v in node.inputs)
        else:
            returns_integers = _is_selecting_kernel(node) and node.inputs[0] in integer_outputs
        if returns_integers:
            integer_outputs.add(_quantize_output(node, sites))
    return Placement(quantized, sites.in_order())


def identity_input(node: ir.Node, depths: Mapping[ir.Value, int]) -> int | None:
    """Index of the identity input of a residual or pyramid Add; None for any other node.

    In a residual Add, the input after fewer weighted layers: the block's input or its projection.
    In a pyramid's Add, the upsampled input.

    Args:
        node: of the graph.
        depths: from `depths_of`.
    """
    if not is_add(node):
        return None
    first, second = node.inputs
    assert first is not None
    assert second is not None
    if role_of(node) == _PYRAMID_ROLE:
        upsampled = [_is_upsampled(v) for v in (first, second)]
        return None if upsampled[0] == upsampled[1] else upsampled.index(True)
    depth = depths.get(first, 0), depths.get(second, 0)
    return None if depth[0] == depth[1] else int(depth[1] < depth[0])


def depths_of(graph: ir.Graph) -> dict[ir.Value, int]:
    """Weighted layers on the longest path to each tensor of the residual parts."""
    depths: dict[ir.Value, int] = {}
    for node in graph:  # in topological order
        if role_of(node) not in _RESIDUAL_ROLES:
            continue
        before = max((depths.get(v, 0) for v in node.inputs if v is not None), default=0)
        depths |= dict.fromkeys(node.outputs, before + (node.op_type in ("Conv", "Gemm")))
    return depths


def is_add(node: ir.Node) -> bool:
    """Whether it adds two feature maps."""
    if node.op_type != "Add" or role_of(node) not in (*_RESIDUAL_ROLES, _PYRAMID_ROLE):
        return False
    return all(v is not None and v.producer() is not None for v in node.inputs)


def _is_upsampled(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Resize"


def _is_output_of(value: ir.Value | None, layers: dict[ir.Node, Layer]) -> bool:
    return value is not None and value.producer() in layers


def _only_predictors_read(node: ir.Node, layers: dict[ir.Node, Layer]) -> bool:
    """Whether no quantized layer reads a Gemm's output, after its ReLU."""
    if node.op_type != "Gemm":
        return False
    return not any(reader in layers for reader, _ in _after_relu(node).uses())


def _after_relu(node: ir.Node) -> ir.Value:
    """A node's output, or that of its ReLU where nothing else reads it: the two are fused."""
    value = node.outputs[0]
    readers = [reader for reader, _ in value.uses()]
    if len(readers) == 1 and readers[0].op_type == "Relu" and not value.is_graph_output():
        return readers[0].outputs[0]
    return value


def _quantize_output(node: ir.Node, sites: _Sites) -> ir.Value:
    value = _after_relu(node)
    for use in list(value.uses()):
        sites.add(value, (use.node, use.idx))
    return value


def _is_selecting_kernel(node: ir.Node) -> bool:
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    return node.op_type == "MaxPool" and len(node.outputs) == 1


def is_non_negative(value: ir.Value) -> bool:
    """Whether the operators before it guarantee that no value is below zero."""
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softmax"):
        return True
    first = producer.inputs[0] if producer.inputs else None
    return producer.op_type in _SELECTING and first is not None and is_non_negative(first)


def source_of_range(value: ir.Value) -> ir.Value:
    """The tensor before MaxPool, nearest Resize and reshapes, which has the same range.

    It is of the same part of the network, and not inside a pooler: rows may have another layout
    there.
    """
    producer = value.producer()
    if producer is None or not _keeps_range(producer):
        return value
    if role_of(producer) in _POOL_ROLES and producer.op_type != "Cast":
        return value
    source = producer.inputs[0]
    before = None if source is None else source.producer()
    if source is None or before is None or role_of(before) != role_of(producer):
        return value
    return source_of_range(source)


def _keeps_range(node: ir.Node) -> bool:
    return _is_selecting_kernel(node) or node.op_type in ("Reshape", "Flatten", "Cast")


class _Sites:
    """Sites by tensor, in insertion order."""

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
