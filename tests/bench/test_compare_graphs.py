"""Graphs are equal by structure whatever their names; one change of any part is reported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.compare_graphs import differences
from runtime.artifacts.checksum import CHECKSUM_KEY
from runtime.artifacts.metadata import MANIFEST_KEY


def _model(prefix: str = "") -> onnx.ModelProto:
    """Relu(Conv(images) + bias) and a pooled branch, with names that begin with `prefix`."""

    def name(text: str) -> str:
        return prefix + text

    weight = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    bias = np.ones((1, 2, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["images", name("w")], [name("c")], name("conv"), pads=[1] * 4),
        helper.make_node("Add", [name("c"), name("b")], [name("a")], name("add")),
        helper.make_node("Relu", [name("a")], ["features"], name("relu")),
        helper.make_node("MaxPool", [name("c")], ["pooled"], name("pool"), kernel_shape=[2, 2]),
    ]
    shape = [None, 2, None, None]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [None, 1, None, None])],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)
            for n in ("features", "pooled")
        ],
        [numpy_helper.from_array(weight, name("w")), numpy_helper.from_array(bias, name("b"))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    manifest = f'{{"precision": "fp32", "versions": {{"maskport": "{len(prefix)}"}}}}'
    metadata = {MANIFEST_KEY: manifest, CHECKSUM_KEY: f"checksum {prefix}", "other": "same"}
    helper.set_model_props(model, metadata)
    return model


def test_names_order_checksum_and_versions_may_differ() -> None:
    renamed = _model("new_")
    pool = renamed.graph.node.pop()
    renamed.graph.node.insert(1, pool)
    onnx.checker.check_model(renamed)

    assert differences(_model(), renamed) == []


def _attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute[0].ints[0] = 2


def _operator(model: onnx.ModelProto) -> None:
    model.graph.node[2].op_type = "Sigmoid"


def _edge(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = "a"


def _swapped_inputs(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[:] = ["b", "c"]


def _one_byte(model: onnx.ModelProto) -> None:
    data = bytearray(model.graph.initializer[0].raw_data)
    data[5] ^= 1
    model.graph.initializer[0].raw_data = bytes(data)


def _swapped_outputs(model: onnx.ModelProto) -> None:
    model.graph.node[2].output[0], model.graph.node[3].output[0] = "pooled", "features"


def _copied_node(model: onnx.ModelProto) -> None:
    """The pool takes a copy of the convolution: the same values, other edges."""
    copy = model.graph.node.add()
    copy.CopyFrom(model.graph.node[0])
    copy.output[0] = "copy"
    pool = model.graph.node.pop(3)
    pool.input[0] = "copy"
    model.graph.node.append(pool)


def _node_metadata(model: onnx.ModelProto) -> None:
    model.graph.node[0].metadata_props.add(key="maskport.role", value="body")


def _metadata(model: onnx.ModelProto) -> None:
    model.metadata_props[0].value = model.metadata_props[0].value.replace("fp32", "fp16")


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 19


def _input_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "photos"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_attribute, "only in the second: Conv conv: operator or attributes"),
        (_operator, "only in the second: Sigmoid relu: operator or attributes"),
        (_edge, "only in the second: MaxPool pool: edges"),
        (_swapped_inputs, "only in the second: Add add: edges"),
        (_one_byte, "only in the second: initializer w"),
        (_swapped_outputs, "graph outputs: other names, types, shapes, order or computations"),
        (
            _copied_node,
            "edges: equal nodes or initializers are shared by other numbers of consumers",
        ),
        (_node_metadata, "metadata of nodes differs"),
        (_metadata, f"metadata {MANIFEST_KEY}.precision: 'fp32' and 'fp16'"),
        (_opset, "opsets: {'': 18} and {'': 19}"),
        (_input_name, "graph inputs: other names, types, shapes or order"),
    ],
)
def test_one_change_is_reported(change: Callable[[onnx.ModelProto], None], expected: str) -> None:
    changed = _model()
    change(changed)

    assert expected in differences(_model(), changed)
