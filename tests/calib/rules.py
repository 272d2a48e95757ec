"""The placement rules, checked on a written file; shares no code with the writers."""

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
    """A graph with its producers, readers and constants."""

    model: onnx.ModelProto
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=lambda: defaultdict(list))
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.model.graph.node:
            for name in node.output:
                self.producers[name] = node
            for name in node.input:
                self.readers[name].append(node)
        self.constants = {
            one.name: numpy_helper.to_array(one) for one in self.model.graph.initializer
        }

    def nodes(self, *op_types: str) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if node.op_type in op_types]

    def op_type(self, tensor: str) -> str:
        return self.producers[tensor].op_type if tensor in self.producers else ""

    def is_dequantized(self, tensor: str) -> bool:
        return self.op_type(tensor) == "DequantizeLinear"

    def before_pair(self, tensor: str) -> str:
        """The tensor before the Q/DQ pair that returns `tensor`."""
        return self.producers[self.producers[tensor].input[0]].input[0]

    def weighted(self) -> list[onnx.NodeProto]:
        """Layers whose weights are constants, in 8 bits or not."""
        return [
            node
            for node in self.nodes(*WEIGHTED)
            if node.input[1] in self.constants or self.is_dequantized(node.input[1])
        ]

    def in_8_bits(self) -> list[onnx.NodeProto]:
        return [node for node in self.weighted() if self.is_dequantized(node.input[1])]

    def weights(self, node: onnx.NodeProto) -> np.ndarray:
        return self.constants[self.producers[node.input[1]].input[0]]


def role(node: onnx.NodeProto) -> str:
    return {entry.key: entry.value for entry in node.metadata_props}.get(ROLE, "")


def read(path: Path) -> Graph:
    return Graph(onnx.load(path))


def broken_rules(graph: Graph, writer: str, predictors: set[str]) -> set[str]:
    """Names of the rules that the graph breaks."""
    rules = {**SHARED, **(TENSORRT if writer == "tensorrt" else ONNXRUNTIME)}
    broken = {name for name, rule in rules.items() if not rule(graph)}
    quantized = {node.name for node in graph.in_8_bits()}
    return broken | ({"predictors in floating point"} if predictors & quantized else set())


def _data_and_weights(graph: Graph) -> bool:
    layers = graph.in_8_bits()
    return bool(layers) and all(graph.is_dequantized(node.input[0]) for node in layers)


def _floats_read_floats(graph: Graph) -> bool:
    eight = {node.name for node in graph.in_8_bits()}
    floats = [node for node in graph.weighted() if node.name not in eight]
    return not any(graph.is_dequantized(node.input[0]) for node in floats)


def _one_pair_per_tensor(graph: Graph) -> bool:
    return all(
        sum(node.op_type == "QuantizeLinear" for node in nodes) <= 1
        for nodes in graph.readers.values()
    )


def _same_scale_on_both_sides(graph: Graph) -> bool:
    return all(
        list(graph.producers[node.input[0]].input[1:]) == list(node.input[1:])
        for node in graph.nodes("DequantizeLinear")
        if node.input[0] in graph.producers
    )


def _scales(graph: Graph) -> bool:
    scales = [
        graph.constants[node.input[1]] for node in graph.nodes("QuantizeLinear", "DequantizeLinear")
    ]
    return all(np.isfinite(scale).all() and (scale > 0).all() for scale in scales)


def _per_channel(graph: Graph) -> bool:
    """A scale per output channel, on the right axis; one scale for a deconvolution."""
    for node in graph.in_8_bits():
        dequantize = graph.producers[node.input[1]]
        scale, weights = graph.constants[dequantize.input[1]], graph.weights(node)
        if node.op_type == "ConvTranspose":
            if scale.shape != ():
                return False
            continue
        axis = next((a.i for a in dequantize.attribute if a.name == "axis"), None)
        by_rows = node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)
        if axis != (0 if by_rows else 1) or scale.shape != (weights.shape[axis],):
            return False
    return True


def _no_outputs(graph: Graph) -> bool:
    """No output of the graph is an input or an output of a pair."""
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
        and all(name in graph.producers for name in node.input)
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
        sum(map(graph.is_dequantized, node.input)) == 1
        and any(name in eight and not graph.is_dequantized(name) for name in node.input)
        for node in adds
    )


def _upsampled_operand(graph: Graph) -> bool:
    eight = {node.output[0] for node in graph.in_8_bits()}
    adds = [n for n in _residual_adds(graph) if role(n) == "fpn" and eight & set(n.input)]
    for node in adds:
        dequantized = [name for name in node.input if graph.is_dequantized(name)]
        if len(dequantized) != 1 or graph.op_type(graph.before_pair(dequantized[0])) != "Resize":
            return False
    return True


def _none_on_outputs(graph: Graph) -> bool:
    """Every pair has a reader: a layer, or an Add's identity input."""
    adds = {node.name for node in _residual_adds(graph)}
    return all(
        any(r.op_type in WEIGHTED or r.name in adds for r in graph.readers[dequantize.output[0]])
        for dequantize in graph.nodes("DequantizeLinear")
        if dequantize.input[0] in graph.producers
    )


def _biases_fit(graph: Graph) -> bool:
    """int32 in units of data scale times weight scale, which integer kernels need."""
    for node in graph.in_8_bits():
        if len(node.input) < 3 or not node.input[2]:
            continue
        bias = graph.producers.get(node.input[2])
        if not graph.is_dequantized(node.input[0]) or bias is None:
            return False
        if graph.constants[bias.input[0]].dtype != np.int32:
            return False
        data, weight = graph.producers[node.input[0]], graph.producers[node.input[1]]
        step = graph.constants[data.input[1]] * graph.constants[weight.input[1]]
        if not np.allclose(graph.constants[bias.input[1]], step, rtol=1e-6):
            return False
        if np.abs(graph.constants[bias.input[0]].astype(np.int64)).max() > 2**30:
            return False
    return True


def _outputs_quantized(graph: Graph) -> bool:
    """A Q reads the output of a convolution in 8 bits, after its ReLU if it has one."""
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
    """Both inputs and the output of an Add between layers in 8 bits go through pairs."""
    eight = {node.output[0] for node in graph.in_8_bits()}
    for node in _residual_adds(graph):
        sources = [graph.before_pair(n) for n in node.input if graph.is_dequantized(n)]
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
    "outputs quantized": _outputs_quantized,
    "Adds in integers": _adds_in_integers,
}
