"""Which tensors are in half precision, and that no cast is superfluous."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.onnx import export_onnx
from export.passes.half_precision import HalfReport, half_precision
from export.passes.opset_22 import opset_22
from export.precision.formats import BF16, FORMATS, FP16, HalfFormat
from export.precision.policy import OPERATORS, ROLES
from export.roles import ROLE_KEY, role_of
from model.errors import ExportError, UsageError
from model.mask_rcnn import MaskRCNN

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
CASES = [(lowering, half) for lowering in ("standard", "native") for half in ("fp16", "bf16")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def halved(
    request: pytest.FixtureRequest, demo_onnx: Path, demo_rtx_onnx: Path
) -> tuple[ir.Model, HalfReport, ir.Model]:
    """A graph in half precision, the report of the pass, and the original graph."""
    lowering, name = request.param
    path = demo_onnx if lowering == "standard" else demo_rtx_onnx
    model = ir.load(path)
    return model, half_precision(model, FORMATS[name]), ir.load(path)


def _was_half(before: ir.Model) -> set[str]:
    """NMS uses FP16 at every precision."""
    return {str(v.name) for node in before.graph for v in node.outputs if v.dtype in HALVES}


def _halves(model: ir.Model, before: ir.Model) -> Iterator[tuple[ir.Node, ir.Value]]:
    old = _was_half(before)
    for node in model.graph:
        for value in node.outputs:
            if value.dtype in HALVES and value.name not in old:
                yield node, value


def test_every_weighted_layer_is_half(halved: tuple[ir.Model, HalfReport, ir.Model]) -> None:
    model, report, _ = halved
    layers = [node for node in model.graph if node.op_type in WEIGHTED]
    left = [node.op_type for node in layers if node.outputs[0].dtype != report.half.type]
    assert len(layers) > 45
    # TensorRT-RTX 1.7 cannot build a deconvolution in BF16.
    assert left == (["ConvTranspose"] if report.half is BF16 else [])
    for node in layers:
        assert len({v.dtype for v in (*node.inputs, *node.outputs) if v is not None}) == 1


def test_float32_roles_and_operators_stay_float32(
    halved: tuple[ir.Model, HalfReport, ir.Model],
) -> None:
    model, report, before = halved
    halves = {(role_of(n), n.op_type) for n, _ in _halves(model, before) if n.op_type != "Cast"}
    roles = {role for role, _ in halves}
    assert roles <= {role for role, rule in ROLES.items() if rule.treatment != "float32"}
    assert {role for role, _ in halves if ROLES[role].treatment == "half"} == {
        "body", "fpn", "rpn", "box_head", "mask_head",
    }  # fmt: skip
    assert all(OPERATORS[operator].treatment != "float32" for _, operator in halves)
    assert {op for role, op in halves if ROLES[role].treatment == "copy"} <= {"Pad", "Concat"}
    assert {op for role, op in halves if role == "rpn"} == {"Conv", "Relu"}
    assert {v.dtype for v in (*model.graph.inputs, *model.graph.outputs)} <= {
        ir.DataType.FLOAT,
        ir.DataType.INT32,
    }
    assert sum(report.nodes.values()) == len({n for n, _ in _halves(model, before)}) - len(
        [n for n, _ in _halves(model, before) if n.op_type == "Cast"]
    )


def test_no_cast_is_superfluous(halved: tuple[ir.Model, HalfReport, ir.Model]) -> None:
    model, report, before = halved
    old = {v.name for node in before.graph if node.op_type == "Cast" for v in node.outputs}
    casts = [n for n in model.graph if n.op_type == "Cast" and n.outputs[0].name not in old]
    assert len(casts) == report.casts
    # Each level's predictors leave the halves (10), the pyramid, the two box predictors.
    assert report.casts <= 22
    casts_of = set()
    for cast in casts:
        source, target = cast.inputs[0], cast.outputs[0]
        assert source is not None
        assert {source.dtype, target.dtype} == {ir.DataType.FLOAT, report.half.type}
        assert (source, target.dtype) not in casts_of
        casts_of.add((source, target.dtype))
        assert target.uses()
        users = [user for user, _ in target.uses()]
        producer = source.producer()
        assert all(user.op_type != "Cast" for user in users)
        assert producer is None or producer.op_type != "Cast"


def test_names_are_unique_and_every_weight_is_read(
    halved: tuple[ir.Model, HalfReport, ir.Model],
) -> None:
    model, report, before = halved
    graph = model.graph
    nodes = [node.name for node in graph]
    values = [v.name for node in graph for v in node.outputs] + list(graph.initializers)
    assert len(set(nodes)) == len(nodes)
    assert len(set(values)) == len(values)
    halves = [v for v in graph.initializers.values() if v.dtype == report.half.type]
    assert len(halves) > 70
    assert all(value.uses() for value in halves)
    # No weight is stored twice, because none is read in both types.
    assert {v.name for v in halves} <= set(before.graph.initializers)
    unread = {n for n, v in before.graph.initializers.items() if not v.uses()}
    assert {n for n, v in graph.initializers.items() if not v.uses()} <= unread


def test_readers(halved: tuple[ir.Model, HalfReport, ir.Model], tmp_path: Path) -> None:
    model, report, _ = halved
    path = tmp_path / "half.onnx"
    if report.half is BF16:
        assert opset_22(model)
        assert not opset_22(model)
    ir.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if report.half is FP16:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return
    with pytest.raises(Exception, match=r"NOT_IMPLEMENTED.*implementation for Conv\(22\)"):
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_every_role_of_the_network_has_a_rule(demo_checkpoint: object) -> None:
    network: MaskRCNN = demo_checkpoint.build()  # type: ignore[attr-defined]
    children = {name for name, _ in network.named_children()}
    assert children | {"roi_stage", "keypoint_pool", "keypoint_head", "outputs"} == set(ROLES)
    assert all(rule.reason for rule in (*ROLES.values(), *OPERATORS.values()))


def _model(nodes: list[tuple[str, str, list[str], str]], weights: dict[str, object]) -> ir.Model:
    """A graph from "x" to "y", float32 [1, 4, 8, 8]; nodes are (role, operator, inputs, output)."""
    shape, dtype = ir.Shape([1, 4, 8, 8]), ir.TensorType(ir.DataType.FLOAT)
    values = {"x": ir.Value(name="x", shape=shape, type=dtype)}
    for name, array in weights.items():
        tensor = ir.tensor(np.asarray(array), name=name)
        values[name] = ir.Value(
            name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
    graph_nodes = []
    for role, operator, inputs, output in nodes:
        node = ir.node(operator, [values[name] for name in inputs], name=output)
        node.metadata_props[ROLE_KEY] = role
        node.outputs[0].name, node.outputs[0].type = output, dtype
        values[output] = node.outputs[0]
        graph_nodes.append(node)
    graph = ir.Graph(
        [values["x"]], [values["y"]], nodes=graph_nodes, opset_imports={"": 18},
        initializers=[values[name] for name in weights],
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)


_KERNEL = np.full((4, 4, 1, 1), 0.25, np.float32)


def _types(model: ir.Model) -> dict[str, str]:
    return {str(n.name): n.outputs[0].dtype.name for n in model.graph if n.op_type != "Cast"}


def test_nodes_between_two_layers_are_half_and_others_are_not() -> None:
    model = _model(
        [
            ("body", "MaxPool_none", ["x"], "before"),
            ("body", "Conv", ["before", "k"], "a"),
            ("body", "Transpose", ["a"], "t"),
            ("body", "Conv", ["t", "k"], "b"),
            ("body", "Relu", ["b"], "r"),
            ("body", "Transpose", ["r"], "leaving"),
            ("body", "Sigmoid", ["leaving"], "s"),
            ("body", "Conv", ["s", "k"], "c"),
            ("select", "Add", ["c", "r"], "y"),
        ],
        {"k": _KERNEL},
    )
    model.graph[0].op_type = "Transpose"
    report = half_precision(model, FP16)
    half, single = "FLOAT16", "FLOAT"
    assert _types(model) == {
        "before": single, "a": half, "t": half, "b": half, "r": half, "leaving": single,
        "s": single, "c": half, "y": single,
    }  # fmt: skip
    # before, r (once for its two readers), s, c
    assert report.casts == 4
    assert [(n, v.dtype.name) for n, v in model.graph.initializers.items()] == [("k", half)]


def test_a_weight_of_both_types_is_stored_twice() -> None:
    model = _model(
        [("body", "Conv", ["x", "k"], "a"), ("select", "Mul", ["a", "k"], "y")], {"k": _KERNEL}
    )
    half_precision(model, FP16)
    types = {name: v.dtype.name for name, v in model.graph.initializers.items()}
    assert types == {"k": "FLOAT", "k.fp16": "FLOAT16"}


def test_an_unknown_role_stays_float32() -> None:
    model = _model([("", "Conv", ["x", "k"], "y")], {"k": _KERNEL})
    assert half_precision(model, FP16).casts == 0
    assert _types(model) == {"y": "FLOAT"}


@pytest.mark.parametrize(
    ("value", "half", "fits"),
    [
        pytest.param(65519.0, FP16, True, id="rounds-to-the-largest"),
        pytest.param(65520.0, FP16, False, id="rounds-beyond"),
        pytest.param(1e6, BF16, True, id="bf16-reaches-far"),
        pytest.param(3.4e38, BF16, False, id="bf16-has-an-end"),
        pytest.param(-np.inf, FP16, True, id="infinity-was-meant"),
    ],
)
def test_a_weight_beyond_the_format_is_named(value: float, half: HalfFormat, fits: bool) -> None:
    kernel = _KERNEL.copy()
    kernel[1, 2] = value
    model = _model([("body", "Conv", ["x", "stem.weight"], "y")], {"stem.weight": kernel})
    if fits:
        assert half_precision(model, half).lost == ()
        return
    with pytest.raises(ExportError, match=rf"'stem.weight': 1 of 16 values .*{half.title}"):
        half_precision(model, half)


def test_a_weight_lost_to_subnormals_is_named() -> None:
    weights = {"tiny": _KERNEL * 3e-7, "fine": _KERNEL / 3}
    nodes = [("body", "Conv", ["x", "tiny"], "a"), ("body", "Conv", ["a", "fine"], "y")]
    report = half_precision(_model(nodes, weights), FP16)
    assert [name for name, _ in report.lost] == ["tiny"]
    assert report.lost[0][1] == pytest.approx(0.2, abs=0.1)
    assert "weight 'tiny' loses" in str(report)
    assert half_precision(_model(nodes, weights), BF16).lost == ()


def test_group_normalization_cannot_change_opset() -> None:
    model = _model([("body", "Relu", ["x"], "y")], {})
    model.graph[0].op_type = "GroupNormalization"
    with pytest.raises(ExportError, match="GroupNormalization 'y': its definition changed"):
        opset_22(model)


def test_an_unknown_precision() -> None:
    with pytest.raises(UsageError, match="--precision: expected one of fp32, fp16, bf16, got 'x'"):
        export_onnx("a.pth", "b.onnx", precision="x")
