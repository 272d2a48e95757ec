"""Which nodes compute in half precision: one table of roles, one of operators.

A node is in half precision if its role and its operator both allow it and its position makes it
worthwhile (`half_nodes`). Everything outside the tables stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from export.precision.formats import HalfFormat
from export.roles import role_of

Treatment = Literal["half", "weighted", "fused", "between", "copy", "float32"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a table: the treatment and its reason."""

    treatment: Treatment
    reason: str


ROLES: dict[str, Rule] = {
    "normalise": Rule("float32", "pixels up to 255 minus a mean; costs nothing"),
    "body": Rule("half", "most of the arithmetic"),
    "fpn": Rule("half", "convolutions and sums of their outputs"),
    "rpn": Rule("half", "its head; top-k, decoding and NMS have operators that stay float32"),
    "box_pool": Rule(
        "copy", "coordinates are float32, and GridSample needs one type for all inputs"
    ),
    "mask_pool": Rule("copy", "as box_pool"),
    "keypoint_pool": Rule("copy", "as box_pool"),
    "roi_stage": Rule("half", "convolutions on every proposal"),
    "box_head": Rule("half", "two large linear layers, and the predictors"),
    "select": Rule("float32", "softmax, top-k, decoding, IoU: cheap, and sensitive to order"),
    "mask_head": Rule("half", "convolutions on every detection; its sigmoid is float32"),
    "keypoint_head": Rule("half", "as mask_head; its resize is float32, for the peak search"),
    "outputs": Rule("float32", "the graph's outputs are float32 at every precision"),
}

_WEIGHTED = "multiply-adds; libraries sum them in float32 and round the sum once"
_FUSED = "libraries fuse it into the weighted layer before it"
_BETWEEN = "between two layers in half precision, float32 would cost two casts"
_SUM = "a sum over many numbers; libraries do not guarantee float32 sums of halves"
_COPY = "copies values that are already halves: one cast after it instead of one per input"

OPERATORS: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), Rule("weighted", _WEIGHTED)),
    **dict.fromkeys(("Relu", "Clip", "HardSwish", "HardSigmoid", "Add"), Rule("fused", _FUSED)),
    **dict.fromkeys(
        ("Mul", "Sub", "Div", "MaxPool", "Resize", "Reshape", "Flatten", "Transpose"),
        Rule("between", _BETWEEN),
    ),
    **dict.fromkeys(
        ("Gather", "Unsqueeze", "Squeeze", "Slice", "Identity"), Rule("between", _BETWEEN)
    ),
    **dict.fromkeys(("Concat", "Pad"), Rule("copy", _COPY)),
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool"), Rule("float32", _SUM)
    ),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "GroupNormalization"),
        Rule("float32", _SUM + "; and of squares, which exceed FP16's range"),
    ),
    **dict.fromkeys(("Softmax", "Sigmoid", "Exp"), Rule("float32", "scores are compared")),
    "TopK": Rule("float32", "ties in half precision would change which proposals survive"),
    "GridSample": Rule("float32", "a grid in FP16 is 0.25 px off at 512 px"),
    "RoiAlign": Rule("float32", "as GridSample"),
}
# Exceptions from the table, by format and operator.
EXCEPTIONS: dict[tuple[str, str], Rule] = {
    ("bf16", "ConvTranspose"): Rule(
        "float32", "TensorRT-RTX 1.7 cannot build it: 'Could not infer output types for … deconv'"
    )
}
# Inputs that are always float32: Resize's RoI and scales.
_NEVER_HALF = {"Resize": (1, 2)}


def data_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """The float32 inputs that half precision would convert, with their indices."""
    fixed = _NEVER_HALF.get(node.op_type, ())
    return [
        (index, value)
        for index, value in enumerate(node.inputs)
        if value is not None and value.dtype == ir.DataType.FLOAT and index not in fixed
    ]


def is_constant(value: ir.Value) -> bool:
    """Whether the value is an initializer or the output of a Constant node."""
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def half_nodes(graph: ir.Graph, half: HalfFormat) -> set[ir.Node]:
    """The nodes that compute in half precision.

    1. Weighted operators of a half role.
    2. Nodes between two of them: their data comes from one (or only from weights) and goes to one.
    3. Fused operators whose data is only halves and weights.
    4. Copies of halves, also in a pool's role.
    """
    allowed = [node for node in graph if (half.name, node.op_type) not in EXCEPTIONS]
    nodes = [node for node in allowed if _treatment(node) != "float32"]
    weighted = {node for node in nodes if _treatment(node) == "weighted"}
    chosen = weighted | (_after(nodes, weighted) & _before(nodes, weighted))
    for node in nodes:
        is_candidate = _treatment(node) == "fused" or (
            _treatment(node) == "copy" and _is_pool(node)
        )
        values = [value for _, value in data_inputs(node)]
        if is_candidate and any(v.producer() in chosen for v in values) and _all_in(values, chosen):
            chosen.add(node)
    return chosen


def _treatment(node: ir.Node) -> Treatment:
    """The combined treatment of a node by the two tables."""
    role, operator = ROLES.get(role_of(node)), OPERATORS.get(node.op_type)
    is_float = any(value.dtype == ir.DataType.FLOAT for value in node.outputs)
    if role is None or operator is None or not is_float or role.treatment == "float32":
        return "float32"
    return (
        operator.treatment
        if role.treatment == "half" or operator.treatment == "copy"
        else "float32"
    )


def _is_pool(node: ir.Node) -> bool:
    return ROLES[role_of(node)].treatment == "copy"


def _all_in(values: Iterable[ir.Value], chosen: set[ir.Node]) -> bool:
    return all(value.producer() in chosen or is_constant(value) for value in values)


def _after(nodes: list[ir.Node], weighted: set[ir.Node]) -> set[ir.Node]:
    """Nodes that depend on a weighted node, or only on weights."""
    after: set[ir.Node] = set()
    for node in nodes:  # in topological order
        values = [value for _, value in data_inputs(node)]
        reached = any(v.producer() in weighted or v.producer() in after for v in values)
        if values and not _is_pool(node) and (reached or all(map(is_constant, values))):
            after.add(node)
    return after


def _before(nodes: list[ir.Node], weighted: set[ir.Node]) -> set[ir.Node]:
    """Nodes that a weighted node depends on."""
    before: set[ir.Node] = set()
    for node in reversed(nodes):
        uses = [use for value in node.outputs for use in value.uses()]
        if not _is_pool(node) and any(
            (user in weighted or user in before) and index not in _NEVER_HALF.get(user.op_type, ())
            for user, index in uses
        ):
            before.add(node)
    return before
