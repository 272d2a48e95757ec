"""Diagnosis of an ONNX graph against each target, by rules.

Every rule was observed in the library. TensorRT-RTX 1.7 compiles If, Scan, and a Loop whose state
keeps its shape, so there is no rule for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx

from export.diagnosis.finding import Finding, Status
from export.diagnosis.graph_view import GraphView, attribute, dynamic_axes
from export.targets import MAX_TOP_K, TARGETS, Target, landscape_hw
from runtime.artifacts.metadata import Artifact, Manifest

_UNSUPPORTED = {
    **dict.fromkeys(
        ("NonMaxSuppression", "NonZero", "Compress", "Unique"),
        "its output shape depends on the data",
    ),
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), "needs a plugin"),
    **dict.fromkeys(
        (
            "SplitToSequence", "SequenceConstruct", "SequenceEmpty", "SequenceInsert",
            "SequenceAt", "ConcatFromSequence", "Bernoulli", "Multinomial", "Det",
        ),
        "TensorRT's parser does not support it",
    ),
}  # fmt: skip
_RUNTIME_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_ROI_ALIGN_WITHOUT_KERNEL = 22
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why a target cannot run the graph: where, why, and the remedy.

    `where` lists the nodes of one rule; the message names the first.
    """

    where: tuple[str, ...]
    reason: str
    remedy: str

    def __str__(self) -> str:
        more = len(self.where) - 1
        return f"{self.where[0]}{f' and {more} more' if more else ''}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Context:
    """Inputs of a rule besides the graph: the command to export again, and the manifest."""

    reexport: str
    manifest: Manifest | None


Rule = Callable[[GraphView, Context], Iterable[Blocker]]


def _label(node: onnx.NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"{node.op_type} '{name[:60]}'"


def _blocker(nodes: list[onnx.NodeProto], reason: str, remedy: str) -> Iterator[Blocker]:
    if nodes:
        yield Blocker(tuple(map(_label, nodes)), reason, remedy)


def _unsupported_operators(view: GraphView, context: Context) -> Iterator[Blocker]:
    for operator, reason in _UNSUPPORTED.items():
        yield from _blocker(view.named(operator), reason, context.reexport)


def _growing_loops(view: GraphView, context: Context) -> Iterator[Blocker]:
    def grows(node: onnx.NodeProto) -> bool:
        body = attribute(node, "body")
        if not isinstance(body, onnx.GraphProto):
            return False
        # The state follows the iteration number and the condition.
        return any(dynamic_axes(state) for state in body.input[2:])

    nodes = [node for node in view.named("Loop") if grows(node)]
    yield from _blocker(nodes, "the shape of its state changes", context.reexport)


def _foreign(view: GraphView, domains: tuple[str, ...]) -> list[onnx.NodeProto]:
    """Nodes of other domains that no function of the file defines."""
    return [
        n
        for n in view.nodes
        if n.domain not in domains and (n.domain, n.op_type) not in view.functions
    ]


def _plugin_operators(view: GraphView, context: Context) -> Iterator[Blocker]:
    quantizers = ("QuantizeLinear", "DequantizeLinear")
    nodes = [n for n in _foreign(view, _RUNTIME_DOMAINS[:2]) if n.op_type not in quantizers]
    yield from _blocker(nodes, "is not a standard operator and needs a plugin", context.reexport)


def _large_top_k(view: GraphView, context: Context) -> Iterator[Blocker]:
    for node in view.named("TopK"):
        values = view.constant(node, 1)
        if values is not None and values.size and values.dtype.kind in "iu":
            k = int(values.max())
        else:  # an attribute before opset 10
            k = attribute(node, "k")
        if isinstance(k, int) and k > MAX_TOP_K:
            yield Blocker(
                (_label(node),),
                f"K is {k}, TensorRT's limit is {MAX_TOP_K}",
                f"export with fewer --candidates, or rpn.pre_nms in a --spec file, at most "
                f"{MAX_TOP_K}",
            )


def _dynamic_sides(view: GraphView, context: Context) -> Iterator[Blocker]:
    has_range = context.manifest is not None and context.manifest.batch_range is not None
    for value in view.inputs:
        axes = [axis for axis in dynamic_axes(value) if axis > 0 or not has_range]
        if axes:
            yield Blocker(
                (f"input '{value.name[:60]}'",),
                f"axes {', '.join(map(str, axes))} have no fixed size",
                context.reexport,
            )


def _duplicate_outputs(view: GraphView, context: Context) -> Iterator[Blocker]:
    counts = Counter(output.name for output in view.model.graph.output)
    for name, count in counts.items():
        if count > 1:
            yield Blocker(
                (f"output '{name[:60]}'",),
                f"is declared {count} times, but an engine has it once",
                "give each output its own name",
            )


def _mixed_grid_samples(view: GraphView, context: Context) -> Iterator[Blocker]:
    for node in view.named("GridSample"):
        image, grid = view.element_type(node, 0), view.element_type(node, 1)
        if image is not None and grid is not None and image != grid:
            yield Blocker(
                (_label(node),),
                f"its image has type {image}, its grid {grid}",
                "cast both to one type; float32 is safe for any canvas",
            )


def _integer_biases(view: GraphView, context: Context) -> Iterator[Blocker]:
    nodes = [n for n in view.named("DequantizeLinear") if view.element_type(n, 0) == "INT32"]
    yield from _blocker(nodes, "dequantizes an int32 bias", "keep biases in float32")


def _zero_points(view: GraphView, context: Context) -> Iterator[Blocker]:
    def is_shifted(node: onnx.NodeProto) -> bool:
        values = view.constant(node, 2)
        return values is not None and bool(values.astype("float32").any())

    nodes = [n for n in view.named("QuantizeLinear", "DequantizeLinear") if is_shifted(n)]
    yield from _blocker(
        nodes, "its zero point is not 0", "quantize symmetrically, with int8 and zero point 0"
    )


def _missing_kernels(view: GraphView, context: Context) -> Iterator[Blocker]:
    if view.opset >= _ROI_ALIGN_WITHOUT_KERNEL:
        yield from _blocker(
            view.named("RoiAlign"),
            f"ONNX Runtime has no kernel for it in opset {view.opset}",
            "export with --opset 18",
        )


def _bfloat16_convolutions(view: GraphView, context: Context) -> Iterator[Blocker]:
    nodes = [n for n in view.named("Conv") if view.element_type(n, 1) == "BFLOAT16"]
    yield from _blocker(
        nodes, "ONNX Runtime has no BF16 convolution on a CPU", "export with --precision fp16"
    )


def _wrong_maxima(view: GraphView, context: Context) -> Iterator[Blocker]:
    nodes = [n for n in view.named("RoiAlign") if attribute(n, "mode") == b"max"]
    yield from _blocker(nodes, "ONNX Runtime's max mode is incorrect", context.reexport)


def _custom_operators(view: GraphView, context: Context) -> Iterator[Blocker]:
    nodes = _foreign(view, _RUNTIME_DOMAINS)
    reason = "is not a standard operator and needs a custom one"
    yield from _blocker(nodes, reason, context.reexport)


TENSORRT: tuple[Rule, ...] = (
    _unsupported_operators,
    _growing_loops,
    _plugin_operators,
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
    _custom_operators,
)


def diagnose_graph(model: onnx.ModelProto, artifact: Artifact | None) -> list[Finding]:
    """One finding per target.

    A blocker is a problem for the target that the file was exported for, and for every target if
    that is unknown; otherwise the target is not available.

    Args:
        model: a readable graph.
        artifact: from the file's metadata; None if it is not ours.
    """
    view = GraphView(model)
    return [
        _finding(target, _blockers(view, target, artifact), artifact) for target in TARGETS.values()
    ]


def _blockers(view: GraphView, target: Target, artifact: Artifact | None) -> list[Blocker]:
    """Everything that prevents one target, in the order of the rules."""
    command = f"export again: python -m export.onnx WEIGHTS --target {target.name}"
    if target.engine:
        command += f" --size {_canvas(artifact)}"
    context = Context(command, None if artifact is None else artifact.manifest)
    rules = TENSORRT if target.engine else ONNXRUNTIME
    return [blocker for rule in rules for blocker in rule(view, context)]


def _finding(target: Target, blockers: list[Blocker], artifact: Artifact | None) -> Finding:
    subject = f"target {target.name}"
    exported_for = None if artifact is None else artifact.manifest.target
    exported_for = exported_for if exported_for in TARGETS else None
    if not blockers:
        return Finding("ok", subject, _approval(target, exported_for))
    status: Status = "problem" if exported_for in (None, target.name) else "n/a"
    shown = [str(blocker) for blocker in blockers[:_SHOWN]]
    if len(blockers) > _SHOWN:
        shown.append(f"and {len(blockers) - _SHOWN} more")
    remedies = dict.fromkeys(blocker.remedy for blocker in blockers[:_SHOWN])
    return Finding(status, subject, "; ".join(shown), "; ".join(remedies))


def _approval(target: Target, exported_for: str | None) -> str:
    if not target.engine or exported_for in (None, target.name):
        return "compatible"
    return f"compatible, but exported for {exported_for}; export it with --target {target.name}"


def _canvas(artifact: Artifact | None) -> str:
    """The file's own canvas, or the landscape canvas of its spec."""
    if artifact is None:
        return "800x1344"
    height, width = artifact.manifest.canvas_hw or landscape_hw(artifact.spec.preprocess)
    return f"{height}x{width}"
