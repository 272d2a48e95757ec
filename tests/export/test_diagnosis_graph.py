"""Operators that a target cannot run: each rule on a small graph, checked with the libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.diagnosis.file import diagnose_file
from export.diagnosis.finding import Finding
from export.diagnosis.graph import diagnose_graph

TARGETS = ("onnxruntime", "tensorrt", "tensorrt-rtx")
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Shape = Sequence[int | str | None] | None


def value(name: str, shape: Shape, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, Any] | None = None,
    opset: int = 18,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def top_k(k: int) -> onnx.ModelProto:
    node = helper.make_node("TopK", ["x", "k"], ["v", "i"], name="best")
    outputs = [value("v", [1, k])]
    return model([node], [value("x", [1, 5000])], outputs, {"k": np.array([k], np.int64)})


def top_k_of_a_constant_node() -> onnx.ModelProto:
    graph = top_k(4000)
    tensor = graph.graph.initializer.pop()
    tensor.name = "other"
    constant = helper.make_node("Constant", [], ["k"], name="k_node", value=tensor)
    graph.graph.node.insert(0, constant)
    return graph


def old_top_k() -> onnx.ModelProto:
    node = helper.make_node("TopK", ["x"], ["v", "i"], name="best", k=4000)
    return model([node], [value("x", [1, 5000])], [value("v", [1, 4000])], opset=9)


def non_zero() -> onnx.ModelProto:
    node = helper.make_node("NonZero", ["x"], ["y"], name="where")
    return model([node], [value("x", [1, 5])], [value("y", [2, None], INT64)])


def suppression() -> onnx.ModelProto:
    node = helper.make_node("NonMaxSuppression", ["b", "s"], ["y"], name="keep")
    inputs = [value("b", [1, 5, 4]), value("s", [1, 1, 5])]
    return model([node], inputs, [value("y", [None, 3], INT64)])


def roi_align(opset: int = 16, mode: str = "avg") -> onnx.ModelProto:
    node = helper.make_node(
        "RoiAlign", ["x", "r", "b"], ["y"], name="pool", output_height=7, output_width=7, mode=mode
    )
    inputs = [value("x", [1, 4, 32, 32]), value("r", [5, 4]), value("b", [5], INT64)]
    return model([node], inputs, [value("y", [5, 4, 7, 7])], opset=opset)


def compress() -> onnx.ModelProto:
    node = helper.make_node("Compress", ["x", "c"], ["y"], name="rows", axis=0)
    inputs = [value("x", [3, 2]), value("c", [3], BOOL)]
    return model([node], inputs, [value("y", [None, 2])])


def sequence() -> onnx.ModelProto:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], name="split"),
        helper.make_node("SequenceAt", ["s", "i"], ["y"], name="at"),
    ]
    constants = {"i": np.array(0, np.int64)}
    return model(nodes, [value("x", [2, 2])], [value("y", [1, 2])], constants)


def loop(grows: bool) -> onnx.ModelProto:
    shape: Shape = [None] if grows else [2]
    step = (
        helper.make_node("Concat", ["a", "a"], ["ao"], axis=0)
        if grows
        else helper.make_node("Add", ["a", "a"], ["ao"])
    )
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), step],
        "body",
        [value("it", [], INT64), value("c", [], BOOL), value("a", shape)],
        [value("co", [], BOOL), value("ao", shape)],
    )
    node = helper.make_node("Loop", ["n", "go", "x"], ["y"], name="turns", body=body)
    constants = {"n": np.array(3, np.int64), "go": np.array(True)}
    return model([node], [value("x", [2])], [value("y", shape)], constants)


def branches(inner: str = "Abs") -> onnx.ModelProto:
    """An If; "NonZero" is unsupported and occurs only in its branches."""
    dtype = INT64 if inner == "NonZero" else FLOAT
    shape: Shape = [1, None] if inner == "NonZero" else [2]

    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node(inner, ["x"], [name], name=f"inner_{name}")
        return helper.make_graph([node], name, [], [value(name, shape, dtype)])

    node = helper.make_node(
        "If", ["c"], ["y"], name="either", then_branch=branch("t"), else_branch=branch("e")
    )
    return model([node], [value("x", [2]), value("c", [], BOOL)], [value("y", shape, dtype)])


def relu(shape: Shape) -> onnx.ModelProto:
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    return model([node], [value("x", shape)], [value("y", shape)])


def twice() -> onnx.ModelProto:
    graph = relu([1, 3])
    graph.graph.output.append(value("y", [1, 3]))
    return graph


def grid_sample(half: bool) -> onnx.ModelProto:
    """The type of the image must be inferred: the file does not declare it."""
    to = TensorProto.FLOAT16 if half else FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["xc"], to=to, name="cast"),
        helper.make_node("GridSample", ["xc", "g"], ["y"], name="sample"),
    ]
    inputs = [value("x", [1, 3, 8, 8]), value("g", [1, 4, 4, 2])]
    return model(nodes, inputs, [value("y", [1, 3, 4, 4], to)])


def quantized(zero: Any, int_bias: bool = False) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dq"),
        helper.make_node("DequantizeLinear", ["w", "s"], ["dw"], name="dq_w"),
    ]
    constants: dict[str, Any] = {"s": np.float32(0.1), "z": zero, "w": np.ones((4, 3, 3, 3), "i1")}
    inputs = ["d", "dw"]
    if int_bias:
        nodes.append(helper.make_node("DequantizeLinear", ["b", "s"], ["db"], name="dq_bias"))
        constants["b"] = np.ones(4, np.int32)
        inputs.append("db")
    nodes.append(helper.make_node("Conv", inputs, ["y"], name="conv", pads=[1] * 4))
    return model(nodes, [value("x", [1, 3, 8, 8])], [value("y", [1, 4, 8, 8])], constants)


def foreign_operator() -> onnx.ModelProto:
    node = helper.make_node("Magic", ["x"], ["y"], name="spell", domain="elsewhere")
    return model([node], [value("x", [1])], [value("y", [1])], domains=["elsewhere"])


def diagnosis(graph: onnx.ModelProto) -> dict[str, Finding]:
    return dict(zip(TARGETS, diagnose_graph(graph, None), strict=True))


REEXPORT = "--target tensorrt-rtx --size 800x1344"
BLOCKED = {
    "NonMaxSuppression": (suppression(), "NonMaxSuppression 'keep'", REEXPORT),
    "RoiAlign": (roi_align(), "RoiAlign 'pool'", REEXPORT),
    "NonZero": (non_zero(), "NonZero 'where'", REEXPORT),
    "Compress": (compress(), "Compress 'rows'", REEXPORT),
    "sequence": (sequence(), "SplitToSequence 'split'", REEXPORT),
    "in a branch": (branches("NonZero"), "NonZero 'inner_e' and 1 more", REEXPORT),
    "growing loop": (loop(True), "Loop 'turns': the shape of its state", REEXPORT),
    "foreign operator": (foreign_operator(), "Magic 'spell'", REEXPORT),
    "TopK": (top_k(3841), "TopK 'best': K is 3841", "--candidates"),
    "TopK of a Constant": (top_k_of_a_constant_node(), "TopK 'best': K is 4000", "--candidates"),
    "TopK of opset 9": (old_top_k(), "TopK 'best': K is 4000", "--candidates"),
    "dynamic sides": (relu([1, 3, "h", "w"]), "input 'x': axes 2, 3", "--size 800x1344"),
    "dynamic batch": (relu(["n", 3, 8, 8]), "input 'x': axes 0", "--size 800x1344"),
    "mixed GridSample": (
        grid_sample(True),
        "GridSample 'sample': its image has type FLOAT16, its grid FLOAT",
        "one type",
    ),
    "uint8 zero point": (
        quantized(np.uint8(128)),
        "QuantizeLinear 'q' and 1 more: its zero point",
        "zero point 0",
    ),
    "int8 zero point": (quantized(np.int8(3)), "QuantizeLinear 'q' and 1 more", "zero point 0"),
    "int32 bias": (quantized(np.int8(0), True), "DequantizeLinear 'dq_bias'", "float32"),
}
SUPPORTED = {
    "largest TopK": top_k(3840),
    "branches": branches(),
    "loop": loop(False),
    "GridSample": grid_sample(False),
    "int8": quantized(np.int8(0)),
    "uint8 with zero point 0": quantized(np.uint8(0)),
    "fixed sides": relu([1, 3, 8, 8]),
}


@pytest.mark.parametrize(("graph", "node", "remedy"), BLOCKED.values(), ids=BLOCKED)
def test_tensorrt_cannot_run(graph: onnx.ModelProto, node: str, remedy: str) -> None:
    findings = diagnosis(graph)
    for target in ("tensorrt", "tensorrt-rtx"):
        assert findings[target].status == "problem"
        assert node in findings[target].detail
    assert remedy in findings["tensorrt-rtx"].remedy


@pytest.mark.parametrize("graph", SUPPORTED.values(), ids=SUPPORTED)
def test_supported_graphs_pass(graph: onnx.ModelProto) -> None:
    assert {f.status for f in diagnosis(graph).values()} == {"ok"}


def test_an_output_that_is_declared_twice() -> None:
    finding = diagnosis(twice())["tensorrt-rtx"]
    assert finding.status == "problem"
    assert "output 'y': is declared 2 times" in finding.detail
    assert "its own name" in finding.remedy


@pytest.mark.parametrize(
    ("graph", "detail", "remedy"),
    [
        (roi_align(22), "RoiAlign 'pool': ONNX Runtime has no kernel", "--opset 18"),
        (roi_align(16, "max"), "RoiAlign 'pool': ONNX Runtime's max mode", "export.onnx WEIGHTS"),
        (foreign_operator(), "Magic 'spell'", "--target onnxruntime"),
    ],
    ids=["opset 22", "max mode", "foreign operator"],
)
def test_onnxruntime_cannot_run(graph: onnx.ModelProto, detail: str, remedy: str) -> None:
    finding = diagnosis(graph)["onnxruntime"]
    assert finding.status == "problem"
    assert detail in finding.detail
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    "graph", [roi_align(21), suppression(), top_k(4000), relu(["n", 3, "h", "w"])]
)
def test_onnxruntime_runs_what_tensorrt_cannot(graph: onnx.ModelProto) -> None:
    assert diagnosis(graph)["onnxruntime"].status == "ok"


def test_many_reasons_are_truncated_and_counted() -> None:
    graph = suppression()
    graph.graph.node.append(helper.make_node("NonZero", ["s"], ["a"], name="a"))
    graph.graph.node.append(helper.make_node("Unique", ["s"], ["b"], name="b"))
    graph.graph.node.append(helper.make_node("Det", ["b"], ["c"], name="c"))
    detail = diagnosis(graph)["tensorrt"].detail
    assert detail.endswith("Unique 'b': its output shape depends on the data; and 1 more")
    assert "Det" not in detail


def test_a_hostile_name_prints_as_one_plain_line() -> None:
    graph = non_zero()
    graph.graph.node[0].name = "a\nproblem  b\x1b[2J"
    line = diagnosis(graph)["tensorrt"].line()
    assert line.isprintable()
    assert r"a\nproblem  b\x1b[2J" in line


def test_damaged_files_are_findings_and_not_errors(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    sources = [case[0].SerializeToString() for case in BLOCKED.values()]
    sources.append(quantized(np.int8(0)).SerializeToString().replace(b"\x10\x03", b"\x10\x57"))
    path = tmp_path / "damaged.onnx"
    for index in range(300):
        data = bytearray(sources[index % len(sources)])
        for _ in range(index % 3):
            data[random.integers(len(data))] = random.integers(256)
        path.write_bytes(data)
        findings = diagnose_file(path).findings
        assert findings[0].status == "problem"
        assert all(finding.line().isprintable() for finding in findings)


def compiles(graph: onnx.ModelProto) -> bool:
    """Whether TensorRT-RTX itself compiles the graph, without a GPU."""
    trt = pytest.importorskip("tensorrt_rtx")
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
    if not parser.parse(graph.SerializeToString()):
        return False
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    return builder.build_serialized_network(network, config) is not None


@pytest.mark.parametrize("graph", [case[0] for case in BLOCKED.values()], ids=BLOCKED)
def test_the_library_rejects_what_the_rules_reject(graph: onnx.ModelProto) -> None:
    assert not compiles(graph)


@pytest.mark.parametrize("graph", SUPPORTED.values(), ids=SUPPORTED)
def test_the_library_compiles_what_the_rules_accept(graph: onnx.ModelProto) -> None:
    assert compiles(graph)


@pytest.mark.parametrize(
    ("graph", "opens"),
    [(roi_align(22), False), (roi_align(21), True), (foreign_operator(), False)],
    ids=["opset 22", "opset 21", "foreign operator"],
)
def test_onnxruntime_agrees(graph: onnx.ModelProto, opens: bool) -> None:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(graph.SerializeToString(), options)
    except Exception:  # ONNX Runtime raises a type of its own per status code
        assert not opens
    else:
        assert opens
