"""Which nodes compute in half precision: one table of roles, one of operators.

A node is in half precision when its role and its operator both allow it and it stands where it
helps; `half_nodes` says where that is. Whatever is in neither table stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from export.precision.formats import HalfFormat
from export.roles import role_of

Kind = Literal["half", "weighted", "follows", "between", "moves", "float32"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a table: what is done, and why."""

    kind: Kind
    reason: str


ROLES: dict[str, Rule] = {
    "normalise": Rule("float32", "pixels of up to 255 less a mean; costs nothing"),
    "body": Rule("half", "most of the arithmetic"),
    "fpn": Rule("half", "convolutions and sums of what they answer"),
    "rpn": Rule("half", "its head; top-k, decoding and NMS are no operators of the other table"),
    "box_pool": Rule("moves", "coordinates are float32, and GridSample wants one type for all"),
    "mask_pool": Rule("moves", "as box_pool"),
    "keypoint_pool": Rule("moves", "as box_pool"),
    "roi_stage": Rule("half", "convolutions on every proposal"),
    "box_head": Rule("half", "two large linear layers, and the predictors"),
    "select": Rule("float32", "softmax, top-k, decoding, IoU: small, and order decides there"),
    "mask_head": Rule("half", "convolutions on every detection; its sigmoid is float32"),
    "keypoint_head": Rule(
        "half", "as mask_head; its resize is float32, a peak is looked for in it"
    ),
    "outputs": Rule("float32", "the graph's face is float32 at every precision"),
}

_WEIGHTED = "multiply-adds; libraries sum them in float32 and round the sum once"
_FUSED = "libraries compute it in the weighted layer before it"
_BETWEEN = "between two layers in half precision a detour to float32 costs two casts"
_SUM = "a sum over many numbers; nothing promises float32 sums for halves"
_MOVES = "moves numbers that are halves already: one cast behind it instead of one per input"

OPERATORS: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), Rule("weighted", _WEIGHTED)),
    **dict.fromkeys(("Relu", "Clip", "HardSwish", "HardSigmoid", "Add"), Rule("follows", _FUSED)),
    **dict.fromkeys(
        ("Mul", "Sub", "Div", "MaxPool", "Resize", "Reshape", "Flatten", "Transpose"),
        Rule("between", _BETWEEN),
    ),
    **dict.fromkeys(
        ("Gather", "Unsqueeze", "Squeeze", "Slice", "Identity"), Rule("between", _BETWEEN)
    ),
    **dict.fromkeys(("Concat", "Pad"), Rule("moves", _MOVES)),
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool"), Rule("float32", _SUM)
    ),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "GroupNormalization"),
        Rule("float32", _SUM + "; and of their squares, which leave FP16's range"),
    ),
    **dict.fromkeys(("Softmax", "Sigmoid", "Exp"), Rule("float32", "scores are compared")),
    "TopK": Rule("float32", "ties in half precision would decide which proposals live"),
    "GridSample": Rule("float32", "a grid in FP16 is 0.25 px off at 512 px"),
    "RoiAlign": Rule("float32", "as GridSample"),
}
# What a format cannot have that the table would give it, by format and operator.
EXCEPTIONS: dict[tuple[str, str], Rule] = {
    ("bf16", "ConvTranspose"): Rule(
        "float32", "TensorRT-RTX 1.7 cannot build it: 'Could not infer output types for … deconv'"
    )
}
# Inputs that stay float32 whatever the node computes in: Resize's RoI and scales.
_NEVER_HALF = {"Resize": (1, 2)}


def data_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """The float32 inputs that would be halves, with their places."""
    fixed = _NEVER_HALF.get(node.op_type, ())
    return [
        (place, value)
        for place, value in enumerate(node.inputs)
        if value is not None and value.dtype == ir.DataType.FLOAT and place not in fixed
    ]


def is_constant(value: ir.Value) -> bool:
    """Whether the value stands in the file, as an initialiser or a Constant node."""
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def half_nodes(graph: ir.Graph, half: HalfFormat) -> set[ir.Node]:
    """The nodes that compute in half precision.

    1. Weighted operators of a half role.
    2. What stands between two of them: its data comes from one (or from weights alone), and
       goes to one.
    3. After that, what follows one and has no other data than halves and weights.
    4. What only moves halves, in a pool's role too.
    """
    allowed = [node for node in graph if (half.name, node.op_type) not in EXCEPTIONS]
    nodes = [node for node in allowed if _kind(node) != "float32"]
    weighted = {node for node in nodes if _kind(node) == "weighted"}
    chosen = weighted | (_after(nodes, weighted) & _before(nodes, weighted))
    for node in nodes:
        wanted = _kind(node) == "follows" or (_kind(node) == "moves" and _is_pool(node))
        values = [value for _, value in data_inputs(node)]
        if wanted and any(v.producer() in chosen for v in values) and _all_in(values, chosen):
            chosen.add(node)
    return chosen


def _kind(node: ir.Node) -> Kind:
    """What the two tables say of a node together."""
    role, operator = ROLES.get(role_of(node)), OPERATORS.get(node.op_type)
    answers_floats = any(value.dtype == ir.DataType.FLOAT for value in node.outputs)
    if role is None or operator is None or not answers_floats or role.kind == "float32":
        return "float32"
    return operator.kind if role.kind == "half" or operator.kind == "moves" else "float32"


def _is_pool(node: ir.Node) -> bool:
    return ROLES[role_of(node)].kind == "moves"


def _all_in(values: Iterable[ir.Value], chosen: set[ir.Node]) -> bool:
    return all(value.producer() in chosen or is_constant(value) for value in values)


def _after(nodes: list[ir.Node], weighted: set[ir.Node]) -> set[ir.Node]:
    """Nodes of which some data comes from a weighted one, or all from weights."""
    found: set[ir.Node] = set()
    for node in nodes:  # in topological order
        values = [value for _, value in data_inputs(node)]
        reached = any(v.producer() in weighted or v.producer() in found for v in values)
        if values and not _is_pool(node) and (reached or all(map(is_constant, values))):
            found.add(node)
    return found


def _before(nodes: list[ir.Node], weighted: set[ir.Node]) -> set[ir.Node]:
    """Nodes whose answer a weighted one computes with."""
    found: set[ir.Node] = set()
    for node in reversed(nodes):
        users = [(user, place) for value in node.outputs for user, place in value.uses()]
        if not _is_pool(node) and any(
            (user in weighted or user in found) and place not in _NEVER_HALF.get(user.op_type, ())
            for user, place in users
        ):
            found.add(node)
    return found
