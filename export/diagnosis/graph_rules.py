"""The rules: which operators and shapes stop TensorRT, and which stop ONNX Runtime.

Every rule was seen in the library itself. TensorRT-RTX 1.7 compiles If, Scan, and a Loop whose
state keeps its shape, which are therefore no rule here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx

from export.diagnosis.graph_view import GraphView, attribute, dynamic_axes
from export.targets import MAX_TOP_K
from runtime.artifacts.metadata import Manifest

_DATA_DEPENDENT = "how much it answers depends on the data"
_PLUGIN = "needs a plugin"
_UNSUPPORTED = "is not in TensorRT's parser"
_REFUSED = {
    "NonMaxSuppression": _DATA_DEPENDENT,
    "RoiAlign": _PLUGIN,
    "NonZero": _DATA_DEPENDENT,
    "Compress": _DATA_DEPENDENT,
    "Unique": _DATA_DEPENDENT,
    "MaxRoiPool": _PLUGIN,
    "SplitToSequence": _UNSUPPORTED,
    "SequenceConstruct": _UNSUPPORTED,
    "SequenceEmpty": _UNSUPPORTED,
    "SequenceInsert": _UNSUPPORTED,
    "SequenceAt": _UNSUPPORTED,
    "ConcatFromSequence": _UNSUPPORTED,
    "Bernoulli": _UNSUPPORTED,
    "Multinomial": _UNSUPPORTED,
    "Det": _UNSUPPORTED,
}
_RUNTIME_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_ROI_ALIGN_WITHOUT_KERNEL = 22


@dataclass(frozen=True, slots=True)
class Stop:
    """One reason why a target cannot take the graph: where, why, what to do.

    `where` has the nodes of one rule; the first is named.
    """

    where: tuple[str, ...]
    reason: str
    remedy: str

    def __str__(self) -> str:
        more = len(self.where) - 1
        return f"{self.where[0]}{f' and {more} more' if more else ''}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule is told beside the graph: the command that exports again, and the manifest."""

    reexport: str
    manifest: Manifest | None


Rule = Callable[[GraphView, Case], Iterable[Stop]]


def _label(node: onnx.NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"{node.op_type} '{name[:60]}'"


def _stop(nodes: list[onnx.NodeProto], reason: str, remedy: str) -> Iterator[Stop]:
    if nodes:
        yield Stop(tuple(map(_label, nodes)), reason, remedy)


def _refused_operators(view: GraphView, case: Case) -> Iterator[Stop]:
    for operator, reason in _REFUSED.items():
        yield from _stop(view.named(operator), reason, case.reexport)


def _growing_loops(view: GraphView, case: Case) -> Iterator[Stop]:
    def grows(node: onnx.NodeProto) -> bool:
        body = attribute(node, "body")
        if not isinstance(body, onnx.GraphProto):
            return False
        # Behind the iteration number and the condition stands the state.
        return any(dynamic_axes(state) for state in body.input[2:])

    nodes = [node for node in view.named("Loop") if grows(node)]
    yield from _stop(nodes, "its state changes its shape", case.reexport)


def _foreign_operators(view: GraphView, case: Case) -> Iterator[Stop]:
    own = ("QuantizeLinear", "DequantizeLinear")
    nodes = [
        n
        for n in view.nodes
        if n.domain not in _RUNTIME_DOMAINS[:2]
        and n.op_type not in own
        and (n.domain, n.op_type) not in view.functions
    ]
    yield from _stop(nodes, "is not ONNX's own and needs a plugin", case.reexport)


def _large_top_k(view: GraphView, case: Case) -> Iterator[Stop]:
    for node in view.named("TopK"):
        values = view.constant(node, 1)
        if values is not None and values.size and values.dtype.kind in "iu":
            k = int(values.max())
        else:  # before opset 10 it was an attribute
            k = attribute(node, "k")
        if isinstance(k, int) and k > MAX_TOP_K:
            yield Stop(
                (_label(node),),
                f"K is {k}, TensorRT takes at most {MAX_TOP_K}",
                f"export with fewer --candidates, or rpn.pre_nms in a --spec file, at most "
                f"{MAX_TOP_K}",
            )


def _dynamic_sides(view: GraphView, case: Case) -> Iterator[Stop]:
    has_range = case.manifest is not None and case.manifest.batch_range is not None
    for value in view.inputs:
        axes = [axis for axis in dynamic_axes(value) if axis > 0 or not has_range]
        if axes:
            yield Stop(
                (f"input '{value.name[:60]}'",),
                f"axes {', '.join(map(str, axes))} have no fixed size",
                case.reexport,
            )


def _duplicate_outputs(view: GraphView, case: Case) -> Iterator[Stop]:
    counts = Counter(output.name for output in view.model.graph.output)
    for name, count in counts.items():
        if count > 1:
            yield Stop(
                (f"output '{name[:60]}'",),
                f"is declared {count} times, and an engine would have it once",
                "give each output a name of its own",
            )


def _mixed_grid_samples(view: GraphView, case: Case) -> Iterator[Stop]:
    for node in view.named("GridSample"):
        image, grid = view.element_type(node, 0), view.element_type(node, 1)
        if image is not None and grid is not None and image != grid:
            yield Stop(
                (_label(node),),
                f"its image is {image} and its grid {grid}",
                "cast both to one type; float32 is safe for any canvas",
            )


def _integer_biases(view: GraphView, case: Case) -> Iterator[Stop]:
    nodes = [n for n in view.named("DequantizeLinear") if view.element_type(n, 0) == "INT32"]
    yield from _stop(nodes, "dequantises an int32 bias", "leave biases in float32")


def _zero_points(view: GraphView, case: Case) -> Iterator[Stop]:
    def is_shifted(node: onnx.NodeProto) -> bool:
        values = view.constant(node, 2)
        return values is not None and bool(values.astype("float32").any())

    nodes = [n for n in view.named("QuantizeLinear", "DequantizeLinear") if is_shifted(n)]
    yield from _stop(
        nodes, "its zero point is not 0", "quantise symmetrically, with int8 and zero point 0"
    )


def _missing_kernels(view: GraphView, case: Case) -> Iterator[Stop]:
    if view.opset >= _ROI_ALIGN_WITHOUT_KERNEL:
        yield from _stop(
            view.named("RoiAlign"),
            f"ONNX Runtime has no kernel for that of opset {view.opset}",
            "export with --opset 18",
        )


def _bfloat16_convolutions(view: GraphView, case: Case) -> Iterator[Stop]:
    nodes = [n for n in view.named("Conv") if view.element_type(n, 1) == "BFLOAT16"]
    yield from _stop(
        nodes, "ONNX Runtime has no BF16 convolution on a CPU", "export with --precision fp16"
    )


def _wrong_maxima(view: GraphView, case: Case) -> Iterator[Stop]:
    nodes = [n for n in view.named("RoiAlign") if attribute(n, "mode") == b"max"]
    yield from _stop(nodes, "ONNX Runtime's max mode answers wrong numbers", case.reexport)


def _unknown_domains(view: GraphView, case: Case) -> Iterator[Stop]:
    nodes = [
        n
        for n in view.nodes
        if n.domain not in _RUNTIME_DOMAINS and (n.domain, n.op_type) not in view.functions
    ]
    yield from _stop(nodes, "is not ONNX's own and needs a custom operator", case.reexport)


TENSORRT: tuple[Rule, ...] = (
    _refused_operators,
    _growing_loops,
    _foreign_operators,
    _large_top_k,
    _dynamic_sides,
    _duplicate_outputs,
    _mixed_grid_samples,
    _integer_biases,
    _zero_points,
)
ONNXRUNTIME: tuple[Rule, ...] = (
    _missing_kernels,
    _bfloat16_convolutions,
    _wrong_maxima,
    _unknown_domains,
)
