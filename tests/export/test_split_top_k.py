"""Several TopK of TensorRT's size against a single one, with ties and empty rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from export.passes.split_top_k import split_top_k
from export.roles import ROLE_KEY
from export.targets import MAX_TOP_K


def _model(count: int, total: int, axis: int) -> ir.Model:
    shape = ["batch", total] if axis else [total, 2]
    given = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    k = ir.node("Constant", [], {"value": ir.tensor(np.array([count], np.int64))})
    top = ir.node("TopK", [given, k.outputs[0]], {"axis": axis}, num_outputs=2)
    top.metadata_props[ROLE_KEY] = "rpn"
    for value, name in zip(top.outputs, ("values", "index"), strict=True):
        value.name = name
    k.outputs[0].name = "k"
    top.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    top.outputs[1].type = ir.TensorType(ir.DataType.INT64)
    double = ir.node("Identity", [top.outputs[0]])
    indices = ir.node("Identity", [top.outputs[1]])
    for node, name in ((double, "best"), (indices, "indices")):
        node.outputs[0].name = name
        node.outputs[0].type = node.inputs[0].type  # type: ignore[union-attr]
    graph = ir.Graph(
        [given], [double.outputs[0], indices.outputs[0]], nodes=[k, top, double, indices],
        opset_imports={"": 18}, name="top",
    )  # fmt: skip
    return ir.Model(graph, ir_version=9)


def _run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {"x": x})
    return outputs


@pytest.mark.parametrize("count", [3841, 6000, 7680, 7681, 12000])
def test_the_parts_are_the_whole(count: int) -> None:
    rng = np.random.default_rng(count)
    x = rng.normal(size=(2, 13_000)).astype(np.float32)
    x[1] = np.round(x[1], 1)  # thousands of ties
    plain, split = _model(count, x.shape[1], 1), _model(count, x.shape[1], 1)
    assert split_top_k(split)
    sizes = [
        int(ir.convenience.get_const_tensor(n.inputs[1]).numpy()[0])  # type: ignore[union-attr,arg-type]
        for n in split.graph
        if n.op_type == "TopK"
    ]
    assert sum(sizes) == count
    assert max(sizes) <= MAX_TOP_K
    for expected, result in zip(_run(plain, x), _run(split, x), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_filler_rows_have_the_value_minus_infinity() -> None:
    x = np.full((1, 9000), -np.inf, np.float32)
    x[0, 5:4005] = np.arange(4000)
    split = _model(6000, 9000, 1)
    assert split_top_k(split)
    values, indices = _run(split, x)
    np.testing.assert_array_equal(values[0, :4000], np.arange(3999, -1, -1))
    np.testing.assert_array_equal(indices[0, :4000], np.arange(4004, 4, -1))
    assert np.isneginf(values[0, 4000:]).all()


def test_the_parts_keep_the_role() -> None:
    split = _model(6000, 9000, 1)
    split_top_k(split)
    built = [n for n in split.graph if n.name and "_split_" in n.name]
    assert built
    assert {n.metadata_props.get(ROLE_KEY) for n in built} == {"rpn"}


def test_another_axis() -> None:
    x = np.random.default_rng(3).normal(size=(5000, 2)).astype(np.float32)
    plain, split = _model(4500, 5000, 0), _model(4500, 5000, 0)
    assert split_top_k(split)
    for expected, result in zip(_run(plain, x), _run(split, x), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_a_small_top_k_does_not_change() -> None:
    model = _model(MAX_TOP_K, 9000, 1)
    assert not split_top_k(model)
    assert sum(n.op_type == "TopK" for n in model.graph) == 1
