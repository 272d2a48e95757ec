"""Placement rules in the files of both writers; each rule is also broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from calib.graph.layers import weighted_layers
from calib.graph.presets import PRESETS, Preset
from calib.options import QuantizeOptions
from calib.quantize import quantize
from tests.calib.rules import Graph, broken_rules, read

# Each preset, format and float type once.
USUAL = (("fast", "fp32", "int8"), ("accurate", "fp32", "fp8"), ("balanced", "fp16", "int8"))
Written = tuple[Path, set[str]]
Break = Callable[[onnx.ModelProto], None]


def _predictors(path: Path) -> set[str]:
    layers = weighted_layers(ir.load(path).graph)
    return {str(layer.node.name) for layer in layers if layer.is_predictor}


@pytest.fixture(scope="module")
def tensorrt(
    demo_rtx_onnx: Path,
    native_table: Path,
    scenes: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    path = tmp_path_factory.mktemp("t") / "int8.onnx"
    options = QuantizeOptions(table=native_table, preset="fast", rounding="nearest")
    quantize(demo_rtx_onnx, scenes, path, options)
    return path, _predictors(demo_rtx_onnx)


@pytest.fixture(scope="module")
def onnxruntime(
    demo_onnx: Path,
    standard_table: Path,
    scenes: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    path = tmp_path_factory.mktemp("o") / "int8.onnx"
    options = QuantizeOptions(table=standard_table, preset="fast", rounding="nearest")
    quantize(demo_onnx, scenes, path, options)
    return path, _predictors(demo_onnx)


@pytest.mark.parametrize(
    ("preset", "float_type", "form"),
    [
        pytest.param(*case, marks=[] if case in USUAL else [pytest.mark.slow])
        for case in product(PRESETS, ("fp32", "fp16"), ("int8", "fp8"))
        if case[0] == "balanced" or case[1] == "fp32"
    ],
)
def test_tensorrts_rules_hold(
    form: str, float_type: str, preset: Preset, demo_rtx_onnx: Path, native_table: Path,
    scenes: list[Path], tmp_path: Path,
) -> None:  # fmt: skip
    options = QuantizeOptions(
        format=form, float_type=float_type, table=native_table, preset=preset, rounding="nearest"
    )
    quantize(demo_rtx_onnx, scenes, tmp_path / "q.onnx", options)
    assert broken_rules(read(tmp_path / "q.onnx"), "tensorrt", _predictors(demo_rtx_onnx)) == set()


@pytest.mark.parametrize("preset", PRESETS)
def test_onnxruntimes_rules_hold(
    preset: Preset, demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    options = QuantizeOptions(table=standard_table, preset=preset, rounding="nearest")
    quantize(demo_onnx, scenes, tmp_path / "q.onnx", options)
    assert broken_rules(read(tmp_path / "q.onnx"), "onnxruntime", _predictors(demo_onnx)) == set()


def test_every_hidden_convolution_is_an_integer_kernel(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    options = QuantizeOptions(table=standard_table, preset="fast", rounding="nearest")
    report = quantize(demo_onnx, scenes, tmp_path / "q.onnx", options)
    layers = weighted_layers(ir.load(demo_onnx).graph)
    hidden = [one for one in layers if not one.is_predictor and one.node.op_type == "Conv"]
    assert report.kernels is not None
    assert report.kernels.integer_convolutions == len(hidden)
    floats = [one for one in layers if one.is_predictor and one.node.op_type == "Conv"]
    assert report.kernels.float_convolutions == len(floats)


def _first_quantize(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "QuantizeLinear")


def _bypass(model: onnx.ModelProto, reader: onnx.NodeProto, index: int) -> None:
    """Connect a node to the tensor before a Q/DQ pair."""
    graph = Graph(model)
    reader.input[index] = graph.before_pair(reader.input[index])


def _data_without_pair(model: onnx.ModelProto) -> None:
    _bypass(model, Graph(model).in_8_bits()[0], 0)


def _float_layer_after_a_pair(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    layer = next(n for n in graph.weighted() if n not in graph.in_8_bits())
    layer.input[0] = next(n.input[0] for n in graph.in_8_bits())


def _two_pairs(model: onnx.ModelProto) -> None:
    again = helper.make_node("QuantizeLinear", list(_first_quantize(model).input), ["twice"])
    model.graph.node.append(again)


def _other_scale(model: onnx.ModelProto) -> None:
    pairs = [
        n for n in Graph(model).nodes("DequantizeLinear") if n.input[0] in Graph(model).producers
    ]
    pairs[0].input[1] = pairs[1].input[1]


def _scale_of_zero(model: onnx.ModelProto) -> None:
    name = _first_quantize(model).input[1]
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.array(0, np.float32), name))


def _wrong_axis(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    dequantize = graph.producers[graph.in_8_bits()[2].input[1]]
    next(a for a in dequantize.attribute if a.name == "axis").i = 1


def _shifted_zero(model: onnx.ModelProto) -> None:
    name = _first_quantize(model).input[2]
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), name))


def _bare_identity(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    for node in graph.nodes("Add"):
        indices = [i for i, name in enumerate(node.input) if graph.is_dequantized(name)]
        if indices and graph.op_type(graph.before_pair(node.input[indices[0]])) != "Resize":
            _bypass(model, node, indices[0])
            return
    raise AssertionError("no residual Add has a pair")


def _bare_upsampled(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    for node in graph.nodes("Add"):
        for index, name in enumerate(node.input):
            if graph.is_dequantized(name) and graph.op_type(graph.before_pair(name)) == "Resize":
                _bypass(model, node, index)
                return
    raise AssertionError("no Add of the pyramid has a pair")


def _pair_after_a_predictor(model: onnx.ModelProto) -> None:
    """For all readers of its output."""
    graph = Graph(model)
    float_layers = [n for n in graph.weighted() if n not in graph.in_8_bits()]
    layer = float_layers[-1]
    like = _first_quantize(model)
    readers = graph.readers[layer.output[0]]
    pair = [
        helper.make_node("QuantizeLinear", [layer.output[0], *like.input[1:]], ["q9"], name="q9"),
        helper.make_node("DequantizeLinear", ["q9", *like.input[1:]], ["d9"], name="d9"),
    ]
    for reader in readers:
        for index, name in enumerate(reader.input):
            if name == layer.output[0]:
                reader.input[index] = "d9"
    model.graph.node.extend(pair)


def _pair_on_an_output(model: onnx.ModelProto) -> None:
    like = _first_quantize(model)
    output = next(o.name for o in model.graph.output if o.name == "scores")
    node = helper.make_node("QuantizeLinear", [output, *like.input[1:]], ["q9"], name="q9")
    model.graph.node.append(node)


def _float_bias(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    layer = next(n for n in graph.in_8_bits() if len(n.input) > 2)
    bias = graph.producers[layer.input[2]]
    values = graph.constants[bias.input[0]].astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "floats"))
    bias.input[0] = "floats"


def _bare_output(model: onnx.ModelProto) -> None:
    """Remove the pair after a layer."""
    graph = Graph(model)
    layer = next(n for n in graph.in_8_bits() if n.op_type == "Conv")
    relu = graph.readers[layer.output[0]][0]
    (quantize_node,) = graph.readers[relu.output[0]]
    (dequantize,) = graph.readers[quantize_node.output[0]]
    model.graph.node.remove(quantize_node)
    dequantize.op_type = "Identity"
    dequantize.input[:] = [relu.output[0]]


SHARED_BREAKS: dict[str, Break] = {
    "data and weights together": _data_without_pair,
    "one pair per tensor": _two_pairs,
    "one scale on both sides": _other_scale,
    "positive scales": _scale_of_zero,
    "weights per output channel": _wrong_axis,
    "graph outputs bare": _pair_on_an_output,
}
TENSORRT_BREAKS: dict[str, Break] = {
    **SHARED_BREAKS,
    "layers in floats read floats": _float_layer_after_a_pair,
    "zero points of zero": _shifted_zero,
    "identity of a residual Add": _bare_identity,
    "upsampled operand of the pyramid": _bare_upsampled,
    "no pair without a layer": _pair_after_a_predictor,
}
ONNXRUNTIME_BREAKS: dict[str, Break] = {
    **SHARED_BREAKS,
    "biases in int32": _float_bias,
    "outputs quantized": _bare_output,
}


@pytest.mark.parametrize("rule", TENSORRT_BREAKS)
def test_a_broken_rule_of_tensorrt_is_detected(rule: str, tensorrt: Written) -> None:
    path, predictors = tensorrt
    graph = read(path)
    assert broken_rules(graph, "tensorrt", predictors) == set()
    TENSORRT_BREAKS[rule](graph.model)
    assert rule in broken_rules(Graph(graph.model), "tensorrt", predictors)


@pytest.mark.parametrize("rule", ONNXRUNTIME_BREAKS)
def test_a_broken_rule_of_onnxruntime_is_detected(rule: str, onnxruntime: Written) -> None:
    path, predictors = onnxruntime
    graph = read(path)
    assert broken_rules(graph, "onnxruntime", predictors) == set()
    ONNXRUNTIME_BREAKS[rule](graph.model)
    assert rule in broken_rules(Graph(graph.model), "onnxruntime", predictors)


def test_a_quantized_predictor_is_detected(tensorrt: Written) -> None:
    path, _ = tensorrt
    graph = read(path)
    named = {graph.in_8_bits()[0].name}
    assert "predictors in floating point" in broken_rules(graph, "tensorrt", named)
