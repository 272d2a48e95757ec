"""The placement rules, read off a written file; shares no code with what writes it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

WEIGHTED = ("Conv", "Gemm", "ConvTranspose")
ROLE = "maskport.role"


@dataclass
class Graph:
    """Look-ups into a graph."""

    model: onnx.ModelProto
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=lambda: defaultdict(list))
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.model.graph.node:
            for name in node.output:
                self.makers[name] = node
            for name in node.input:
                self.readers[name].append(node)
        self.constants = {
            one.name: numpy_helper.to_array(one) for one in self.model.graph.initializer
        }

    def nodes(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if node.op_type in kinds]

    def kind(self, tensor: str) -> str:
        return self.makers[tensor].op_type if tensor in self.makers else ""

    def is_restored(self, tensor: str) -> bool:
        return self.kind(tensor) == "DequantizeLinear"

    def quantised_tensor(self, restored: str) -> str:
        """The tensor in front of the Q/DQ pair that answers `restored`."""
        return self.makers[self.makers[restored].input[0]].input[0]

    def weighted(self) -> list[onnx.NodeProto]:
        """Layers whose weights are constants, in 8 bits or not."""
        return [
            node
            for node in self.nodes(*WEIGHTED)
            if node.input[1] in self.constants or self.is_restored(node.input[1])
        ]

    def in_8_bits(self) -> list[onnx.NodeProto]:
        return [node for node in self.weighted() if self.is_restored(node.input[1])]

    def weights(self, node: onnx.NodeProto) -> np.ndarray:
        return self.constants[self.makers[node.input[1]].input[0]]


def role(node: onnx.NodeProto) -> str:
    return {entry.key: entry.value for entry in node.metadata_props}.get(ROLE, "")


def read(path: Path) -> Graph:
    return Graph(onnx.load(path))


def broken_rules(graph: Graph, writer: str, predictors: set[str]) -> set[str]:
    """Names of the rules that the graph breaks."""
    rules = {**SHARED, **(TENSORRT if writer == "tensorrt" else ONNXRUNTIME)}
    found = {name for name, rule in rules.items() if not rule(graph)}
    quantised = {node.name for node in graph.in_8_bits()}
    return found | ({"predictors in floating point"} if predictors & quantised else set())


def _data_and_weights(graph: Graph) -> bool:
    layers = graph.in_8_bits()
    return bool(layers) and all(graph.is_restored(node.input[0]) for node in layers)


def _floats_read_floats(graph: Graph) -> bool:
    eight = {node.name for node in graph.in_8_bits()}
    floats = [node for node in graph.weighted() if node.name not in eight]
    return not any(graph.is_restored(node.input[0]) for node in floats)


def _one_pair_per_tensor(graph: Graph) -> bool:
    return all(
        sum(node.op_type == "QuantizeLinear" for node in nodes) <= 1
        for nodes in graph.readers.values()
    )


def _same_scale_on_both_sides(graph: Graph) -> bool:
    return all(
        list(graph.makers[node.input[0]].input[1:]) == list(node.input[1:])
        for node in graph.nodes("DequantizeLinear")
        if node.input[0] in graph.makers
    )


def _scales(graph: Graph) -> bool:
    found = [
        graph.constants[node.input[1]] for node in graph.nodes("QuantizeLinear", "DequantizeLinear")
    ]
    return all(np.isfinite(scale).all() and (scale > 0).all() for scale in found)


def _per_channel(graph: Graph) -> bool:
    """A scale per output channel, on the right axis; one scale for a deconvolution."""
    for node in graph.in_8_bits():
        restore = graph.makers[node.input[1]]
        scale, weights = graph.constants[restore.input[1]], graph.weights(node)
        if node.op_type == "ConvTranspose":
            if scale.shape != ():
                return False
            continue
        axis = next((a.i for a in restore.attribute if a.name == "axis"), None)
        by_rows = node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)
        if axis != (0 if by_rows else 1) or scale.shape != (weights.shape[axis],):
            return False
    return True


def _no_outputs(graph: Graph) -> bool:
    """Nothing that leaves the graph comes out of a pair, nor goes into one."""
    names = {value.name for value in graph.model.graph.output}
    return not any(
        names & {*node.input, *node.output}
        for node in graph.nodes("QuantizeLinear", "DequantizeLinear")
    )


def _residual_adds(graph: Graph) -> list[onnx.NodeProto]:
    return [
        node
        for node in graph.nodes("Add")
        if role(node) in ("body", "roi_stage", "fpn")
        and all(name in graph.makers for name in node.input)
    ]


def _zero_points_of_zero(graph: Graph) -> bool:
    pairs = graph.nodes("QuantizeLinear", "DequantizeLinear")
    zeros = [graph.constants[node.input[2]] for node in pairs]
    return all(not zero.astype(np.float32).any() and zero.dtype != np.uint8 for zero in zeros)


def _identity_of_residual(graph: Graph) -> bool:
    """One side through a pair, and the branch bare, where the branch is a layer in 8 bits."""
    eight = {node.output[0] for node in graph.in_8_bits()}
    adds = [n for n in _residual_adds(graph) if role(n) != "fpn" and eight & set(n.input)]
    return all(
        sum(map(graph.is_restored, node.input)) == 1
        and any(name in eight and not graph.is_restored(name) for name in node.input)
        for node in adds
    )


def _upsampled_operand(graph: Graph) -> bool:
    eight = {node.output[0] for node in graph.in_8_bits()}
    adds = [n for n in _residual_adds(graph) if role(n) == "fpn" and eight & set(n.input)]
    for node in adds:
        restored = [name for name in node.input if graph.is_restored(name)]
        if len(restored) != 1 or graph.kind(graph.quantised_tensor(restored[0])) != "Resize":
            return False
    return True


def _none_on_outputs(graph: Graph) -> bool:
    """A pair is there for a layer that reads it, or for an Add's identity."""
    adds = {node.name for node in _residual_adds(graph)}
    return all(
        any(r.op_type in WEIGHTED or r.name in adds for r in graph.readers[restore.output[0]])
        for restore in graph.nodes("DequantizeLinear")
        if restore.input[0] in graph.makers
    )


def _biases_fit(graph: Graph) -> bool:
    """int32 in units of data scale times weight scale, without which no kernel is merged."""
    for node in graph.in_8_bits():
        if len(node.input) < 3 or not node.input[2]:
            continue
        bias = graph.makers.get(node.input[2])
        if not graph.is_restored(node.input[0]) or bias is None:
            return False
        if graph.constants[bias.input[0]].dtype != np.int32:
            return False
        data, weight = graph.makers[node.input[0]], graph.makers[node.input[1]]
        step = graph.constants[data.input[1]] * graph.constants[weight.input[1]]
        if not np.allclose(graph.constants[bias.input[1]], step, rtol=1e-6):
            return False
        if np.abs(graph.constants[bias.input[0]].astype(np.int64)).max() > 2**30:
            return False
    return True


def _answers_quantised(graph: Graph) -> bool:
    """A convolution in 8 bits answers a Q, through its ReLU if that alone reads it."""
    for node in graph.in_8_bits():
        if node.op_type != "Conv":
            continue
        readers = graph.readers[node.output[0]]
        if len(readers) == 1 and readers[0].op_type == "Relu":
            readers = graph.readers[readers[0].output[0]]
        if not any(reader.op_type == "QuantizeLinear" for reader in readers):
            return False
    return True


def _adds_in_integers(graph: Graph) -> bool:
    """Both sides of an Add between layers in 8 bits, and its answer, go through pairs."""
    eight = {node.output[0] for node in graph.in_8_bits()}
    for node in _residual_adds(graph):
        sources = [graph.quantised_tensor(n) for n in node.input if graph.is_restored(n)]
        if eight & {*node.input, *sources} and len(sources) < 2 and _both_integer(graph, node):
            return False
    return True


def _both_integer(graph: Graph, node: onnx.NodeProto) -> bool:
    eight = {one.output[0] for one in graph.in_8_bits()}
    return all(name in eight for name in node.input)


SHARED = {
    "data and weights together": _data_and_weights,
    "one pair per tensor": _one_pair_per_tensor,
    "one scale on both sides": _same_scale_on_both_sides,
    "positive scales": _scales,
    "weights per output channel": _per_channel,
    "graph outputs bare": _no_outputs,
}
TENSORRT = {
    "layers in floats read floats": _floats_read_floats,
    "zero points of zero": _zero_points_of_zero,
    "identity of a residual Add": _identity_of_residual,
    "upsampled operand of the pyramid": _upsampled_operand,
    "no pair without a layer": _none_on_outputs,
}
ONNXRUNTIME = {
    "biases in int32": _biases_fit,
    "answers quantised": _answers_quantised,
    "Adds in integers": _adds_in_integers,
}
