"""The passes of the `native` lowering, and its level rule, change no result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript.optimizer import fold_constants, remove_unused_nodes

import export.tracing as tracing
from export.passes.drop_padding import drop_padding
from export.passes.narrow_integers import narrow_integers
from export.passes.products_without_gemm import products_without_gemm
from export.tracing import GraphShape
from model.checkpoint import Checkpoint
from model.native.level_rule import level_areas
from model.native.options import NativeOptions
from model.ops import pyramid_levels
from model.spec import PoolerSpec
from tests.exported_operators import op_counts, run
from tests.lively import picture

_LOWEST = -np.inf


def _graph(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...],
    constants: dict[str, np.ndarray],
    outputs: dict[str, int],
) -> onnx.ModelProto:
    """A graph with one float32 input "x", and outputs of the given types."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def _apply(change: Callable[[ir.Model], bool], model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The rewritten graph, or None if the pass changed nothing."""
    graph_model = ir.serde.deserialize_model(model)
    changed = change(graph_model)
    rewritten = ir.serde.serialize_model(graph_model)
    onnx.checker.check_model(rewritten)
    return rewritten if changed else None


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return run(model, feed)[0]


# drop_padding: TopK over x, float32 [2, 6], and three rows of padding.


def _top_k(
    padding: str = "constant",
    filler: float = _LOWEST,
    count: int = 4,
    order: tuple[str, ...] = ("x", "padding"),
    concat_axis: int = 1,
    axis: int = -1,
    highest: int = 5,
    shape: tuple[int | str, ...] = (2, 6),
) -> onnx.ModelProto:
    sides = np.array([2, 3] if concat_axis % 2 else [3, 6])
    nodes, constants = [], {"count": np.array([count]), "low": np.array(0)}
    constants |= {"high": np.array(highest), "sides": sides}
    if padding == "constant":
        constants["padding"] = np.full(sides, filler, np.float32)
    elif padding == "expand":
        constants["filler"] = np.full((1, 1), filler, np.float32)
        nodes.append(helper.make_node("Expand", ["filler", "sides"], ["padding"]))
    else:
        value = numpy_helper.from_array(np.array([filler], np.float32))
        nodes.append(helper.make_node("ConstantOfShape", ["sides"], ["padding"], value=value))
    nodes += [
        helper.make_node("Concat", order, ["padded"], axis=concat_axis),
        helper.make_node("TopK", ["padded", "count"], ["best", "indices"], axis=axis),
        helper.make_node("Clip", ["indices", "low", "high"], ["clipped"]),
        helper.make_node("Identity", ["clipped"], ["rows"]),
    ]
    outputs = {"best": TensorProto.FLOAT, "rows": TensorProto.INT64}
    return _graph(nodes, shape, constants, outputs)


def _logits() -> list[np.ndarray]:
    """Random, all equal, all -inf, and partly -inf."""
    rng = np.random.default_rng(0)
    free = rng.normal(size=(2, 6)).astype(np.float32)
    some = np.where(rng.random((2, 6)) < 0.7, np.float32(_LOWEST), free)
    return [free, np.ones_like(free), np.full_like(free, _LOWEST), some]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="constant"),
        pytest.param({"padding": "expand"}, id="expanded"),
        pytest.param({"padding": "shape"}, id="constant-of-shape"),
        pytest.param({"count": 6}, id="as-many-as-asked-for"),
        pytest.param({"count": 1, "axis": 1, "concat_axis": -1}, id="axes-counted-both-ways"),
    ],
)
def test_padding_that_cannot_be_selected_is_dropped(options: dict) -> None:
    model = _top_k(**options)
    rewritten = _apply(drop_padding, model)
    assert rewritten is not None
    top_k = next(node for node in rewritten.graph.node if node.op_type == "TopK")
    assert top_k.input[0] == "x"
    assert next(n for n in rewritten.graph.node if n.output[0] == "rows").input[0] == "indices"
    for logits in _logits():
        for before, after in zip(
            _run(model, {"x": logits}), _run(rewritten, {"x": logits}), strict=True
        ):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"count": 7, "highest": 8}, id="one-too-few"),
        pytest.param({"filler": -1e9}, id="only-very-low"),
        pytest.param({"filler": np.inf}, id="plus-infinity"),
        pytest.param({"filler": 0.0, "padding": "shape"}, id="zero"),
        pytest.param({"order": ("padding", "x")}, id="padding-first"),
        pytest.param({"order": ("x", "x", "padding")}, id="two-before-it"),
        pytest.param({"order": ("x", "x")}, id="no-constant"),
        pytest.param({"concat_axis": 0}, id="padded-along-another-axis"),
        pytest.param({"axis": 0, "count": 2, "highest": 1}, id="taken-along-another-axis"),
        pytest.param({"shape": (2, "n")}, id="any-length"),
    ],
)
def test_padding_that_can_be_selected_stays(options: dict) -> None:
    assert _apply(drop_padding, _top_k(**options)) is None


def test_a_lower_clip_stays() -> None:
    model = _top_k(highest=4)
    rewritten = _apply(drop_padding, model)
    assert rewritten is not None
    assert op_counts(rewritten)["Clip"]
    for logits in _logits():
        np.testing.assert_array_equal(
            _run(model, {"x": logits})[1], _run(rewritten, {"x": logits})[1]
        )


# narrow_integers


def _int64_at_run_time(model: onnx.ModelProto) -> list[str]:
    """Operators with int64 outputs that depend on the inputs, by ONNX's type inference."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    live = {value.name for value in model.graph.input}
    operators = []
    for node in model.graph.node:
        if live.isdisjoint(node.input):
            continue
        live.update(node.output)
        outputs = [name for name in node.output if name]
        assert all(name in types for name in outputs), node.op_type
        operators += [node.op_type for name in outputs if types[name] == TensorProto.INT64]
    return operators


def _index_arithmetic() -> onnx.ModelProto:
    """Arithmetic on the indices of the best 5 of 12; the pass has no rule for Mod."""
    nodes = [
        helper.make_node("TopK", ["x", "count"], ["best", "index"]),
        helper.make_node("Div", ["index", "three"], ["row"]),
        helper.make_node("Mod", ["index", "three"], ["column"]),
        helper.make_node("Add", ["row", "column"], ["sum"]),
        helper.make_node("Equal", ["row", "three"], ["last"]),
        helper.make_node("Where", ["last", "minus", "sum"], ["chosen"]),
        helper.make_node("Gather", ["table", "row"], ["gathered"]),
        helper.make_node("GatherElements", ["x", "index"], ["again"], axis=1),
        helper.make_node("Cast", ["chosen"], ["long"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["long", "axes"], ["total"], keepdims=0),
        helper.make_node("Cast", ["total"], ["result"], to=TensorProto.FLOAT),
    ]
    constants = {
        "count": np.array([5]),
        "three": np.array(3),
        "minus": np.array(-7),
        "axes": np.array([1]),
        "table": np.array([10, 20, 30, 40]),
    }
    outputs = {"result": TensorProto.FLOAT, "again": TensorProto.FLOAT}
    return _graph(nodes, (2, 12), constants, outputs)


def test_index_arithmetic_is_narrowed() -> None:
    model = _index_arithmetic()
    assert set(_int64_at_run_time(model)) > {"TopK", "Div", "Mod", "Add", "Where", "Gather"}
    rewritten = _apply(narrow_integers, model)
    assert rewritten is not None
    # Mod's input is cast back to int64, and its output narrowed again before Add.
    assert sorted(_int64_at_run_time(rewritten)) == ["Cast", "Mod", "TopK"]
    for seed in range(5):
        feed = {"x": np.random.default_rng(seed).normal(size=(2, 12)).astype(np.float32)}
        for before, after in zip(_run(model, feed), _run(rewritten, feed), strict=True):
            np.testing.assert_array_equal(before, after)


def test_a_graph_without_integers_does_not_change() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    assert _apply(narrow_integers, _graph(nodes, (2, 3), {}, {"y": TensorProto.FLOAT})) is None


Rewrite = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="module")
def rewritten(demo_checkpoint: Checkpoint) -> Rewrite:
    """The demo's graph with the given passes; traced once."""
    traced: list[onnx.ModelProto] = []

    def record(model: ir.Model) -> bool:
        traced.append(ir.serde.serialize_model(model))
        return False

    network = demo_checkpoint.build()
    tracing.trace(network, GraphShape(1, 256, 320), 18, NativeOptions(), [record])

    def apply(*passes: tracing.Pass) -> onnx.ModelProto:
        model = ir.serde.deserialize_model(traced[0])
        for each in passes:
            each(model)
        fold_constants(model, input_size_limit=2**24, output_size_limit=2**24)
        remove_unused_nodes(model)
        return ir.serde.serialize_model(model)

    return apply


@pytest.fixture(scope="module")
def plain(rewritten: Rewrite) -> onnx.ModelProto:
    """The demo's graph before any pass."""
    return rewritten()


def _picture_feed(seed: int) -> dict[str, np.ndarray]:
    pixels = picture(256, 320, seed).transpose(2, 0, 1)[None]
    images = (pixels / 128 - 1).astype(np.float32)
    return {"images": images, "image_hw": np.array([[250.0, 311.0]], np.float32)}


def test_linear_layers_become_convolutions(plain: onnx.ModelProto, rewritten: Rewrite) -> None:
    model = rewritten(products_without_gemm)
    before, after = op_counts(plain), op_counts(model)
    assert before["Gemm"] >= 4
    assert after["Gemm"] == 0
    assert after["Conv"] == before["Conv"] + before["Gemm"]
    # The mask predictor's product of one row; NMS's in half precision stay.
    assert after["MatMul"] == before["MatMul"] - 1
    onnx.checker.check_model(model, full_check=True)
    feed = _picture_feed(0)
    for expected, result in zip(_run(plain, feed), _run(model, feed), strict=True):
        assert expected.shape == result.shape
        np.testing.assert_allclose(expected, result, atol=1e-3)


def test_the_network_computes_with_int32_only(plain: onnx.ModelProto, rewritten: Rewrite) -> None:
    narrow = rewritten(drop_padding, narrow_integers)
    assert set(_int64_at_run_time(narrow)) == {"TopK"}
    assert len(set(_int64_at_run_time(plain))) > 5
    assert narrow.graph.output == plain.graph.output
    for seed in range(3):
        feed = _picture_feed(seed)
        for expected, result in zip(_run(plain, feed), _run(narrow, feed), strict=True):
            assert expected.dtype == result.dtype
            np.testing.assert_array_equal(expected, result)


# level_rule


@pytest.mark.parametrize(
    "strides",
    [(4, 8, 16, 32), (4, 8, 16, 32, 64), (8, 16), (16, 32, 64)],
    ids=lambda strides: "-".join(map(str, strides)),
)
@pytest.mark.parametrize(
    ("inner_eps", "outer_eps"),
    [pytest.param(0.0, 1e-6, id="torchvision"), pytest.param(1e-8, 0.0, id="detectron2")],
)
def test_level_areas_are_the_eager_rule(
    strides: tuple[int, ...], inner_eps: float, outer_eps: float
) -> None:
    """200 float32 steps around each boundary, boxes of all sizes, and invalid boxes."""
    areas = np.array(
        level_areas(PoolerSpec(strides=strides, inner_eps=inner_eps, outer_eps=outer_eps)),
        np.float32,
    )
    assert len(areas) == len(strides) - 1
    bits = areas.view(np.int32)[:, None] + np.arange(-200, 201, dtype=np.int32)
    near = bits.reshape(-1).view(np.float32)
    rng = np.random.default_rng(7)
    corner = rng.uniform(-100, 1400, (200_000, 2))
    sides = np.exp(rng.uniform(-3, 8, (200_000, 2)))
    odd = [[0, 0, np.inf, 1], [0, 0, -5, 3], [2, 2, 2, 2], [np.nan] * 4]
    parts = [
        np.stack([0 * near, 0 * near, near, 0 * near + 1], axis=1),
        np.concatenate([corner, corner + sides], axis=1),
        np.array(odd),
    ]
    rois = np.concatenate(parts).astype(np.float32)
    x0, y0, x1, y1 = rois.T
    counted = ((x1 - x0) * (y1 - y0) >= areas[:, None]).sum(axis=0)
    finest = strides[0].bit_length() - 1
    levels = pyramid_levels(
        torch.tensor(rois), len(strides), finest, 224.0, 4, inner_eps, outer_eps
    )
    np.testing.assert_array_equal(counted, levels.numpy())
