"""The emulator rounds like the formats, bit for bit, and detects overflow unlike ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.precision.emulator import RANGES_OUTPUT, Emulation, emulate
from export.precision.formats import FORMATS
from export.precision.linear_layers import products
from export.precision.ranges import read_statistics
from export.precision.session import EmulatedSession
from model.errors import ExportError

DTYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# Larger BF16 values are not rounded.
BF16_UP_TO = 2.0**100


def _graph(
    nodes: list[onnx.NodeProto],
    types: dict[str, int],
    weights: tuple[onnx.TensorProto, ...] = (),
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *outputs)
    ]
    ends[0].type.tensor_type.shape.dim.add().dim_param = "n"
    inner = [
        helper.make_tensor_value_info(name, dtype, None)
        for name, dtype in types.items()
        if name not in outputs
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], list(weights), value_info=inner)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _casts(name: str) -> onnx.ModelProto:
    dtype = DTYPES[name]
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=dtype),
        helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    ]
    return _graph(nodes, {"h": dtype})


def _run(emulation: Emulation, x: np.ndarray) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        emulation.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def _around(numbers: np.ndarray) -> np.ndarray:
    """Every number, the midpoint to the next one, and the float32 neighbors of both."""
    finite = np.unique(numbers[np.isfinite(numbers)]).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        midpoints = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
        numbers_and_midpoints = np.concatenate([numbers.astype(np.float32), midpoints])
        sides = [np.nextafter(numbers_and_midpoints, np.float32(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([numbers_and_midpoints, *sides])


def _random_floats(seed: int) -> np.ndarray:
    bits = np.random.default_rng(seed).integers(0, 2**32, 500_000, dtype=np.uint32)
    return bits.view(np.float32)


def _assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    assert same.all(), (got[~same][:5], expected[~same][:5])


def test_fp16_is_rounded_as_numpy_does() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    ends = np.array([65519.99, 65520, -65520, 1e30, 3e38, -3e38, 6e-8, 2.98e-8], np.float32)
    x = np.concatenate([_around(halves), _random_floats(0), ends])
    got = _run(emulate(_casts("fp16")), x)["y"]
    with np.errstate(over="ignore"):
        _assert_same(got, x.astype(np.float16).astype(np.float32))
    assert np.isinf(got[np.abs(x) >= 65520]).all()


def test_bf16_is_rounded_as_torch_does() -> None:
    words = np.arange(2**16, dtype=np.uint32) << 16
    x = np.concatenate([_around(words.view(np.float32)), _random_floats(1)])
    x = x[~(np.isfinite(x) & (np.abs(x) >= BF16_UP_TO))]
    expected = torch.from_numpy(x).to(torch.bfloat16).float().numpy()
    _assert_same(_run(emulate(_casts("bf16")), x)["y"], expected)


@pytest.mark.parametrize("name", DTYPES)
def test_every_mantissa(name: str) -> None:
    step = 7  # coprime to every power of two: all low bits occur
    x = (np.arange(0, 2**23, step, dtype=np.uint32) | np.uint32(0x3F800000)).view(np.float32)
    kind = torch.float16 if name == "fp16" else torch.bfloat16
    expected = torch.from_numpy(x).to(kind).float().numpy()
    _assert_same(_run(emulate(_casts(name)), x)["y"], expected)


def _chain() -> onnx.ModelProto:
    """x → half → times 300 → times 1/300 → float32."""
    half = TensorProto.FLOAT16
    factors = [
        numpy_helper.from_array(np.array(factor, np.float16), name)
        for name, factor in (("up", 300), ("down", 1 / 300))
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=half),
        helper.make_node("Mul", ["h", "up"], ["raised"]),
        helper.make_node("Relu", ["raised"], ["relu"]),
        helper.make_node("Mul", ["relu", "down"], ["back"]),
        helper.make_node("Cast", ["back"], ["y"], to=TensorProto.FLOAT),
    ]
    types = dict.fromkeys(("h", "raised", "relu", "back"), half)
    return _graph(nodes, types, tuple(factors))


def test_every_step_is_rounded_and_overflow_is_infinite() -> None:
    x = np.array([1.0001, 100.3, 218.0, 219.0, 1e4, -3.3], np.float32)
    half = np.float16
    with np.errstate(over="ignore"):
        raised = np.maximum(x.astype(half) * half(300), half(0))
        expected = (raised * half(1 / 300)).astype(np.float32)
    emulation = emulate(_chain())
    assert [tensor.name for tensor in emulation.tensors] == ["h", "raised", "back"]
    np.testing.assert_array_equal(_run(emulation, x)["y"], expected)
    assert np.isinf(expected[3:5]).all()


def test_onnx_runtime_itself_hides_the_overflow() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        _chain().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": np.array([1e4], np.float32)})
    assert np.isfinite(y).all()


def test_ranges() -> None:
    x = np.array([0.0, 3e-5, 1e-9, 100.0, 120.0, 1e4], np.float32)
    emulation = emulate(_chain(), ranges=True)
    report = read_statistics(emulation.tensors, _run(emulation, x)[RANGES_OUTPUT])
    first, raised, back = report.tensors
    assert (first.size, first.overflowed, first.subnormal, first.near) == (6, 0, 2, 0)
    assert (raised.overflowed, raised.near, raised.subnormal) == (1, 2, 0)
    assert raised.largest == np.float32(3e6)
    assert back.overflowed == 1
    assert [t.tensor.name for t in report.overflowed] == ["raised", "back"]
    assert report.nearest in (raised, back)
    assert report.most_subnormal is first
    assert len(report.of_format(FORMATS["fp16"]).tensors) == 3
    assert report.of_format(FORMATS["bf16"]).tensors == ()


def test_nan_is_reported() -> None:
    emulation = emulate(_casts("fp16"), ranges=True)
    statistics = _run(emulation, np.array([1.0, np.nan], np.float32))[RANGES_OUTPUT]
    (tensor,) = read_statistics(emulation.tensors, statistics).overflowed
    assert (tensor.overflowed, "contains NaN" in str(tensor)) == (1, True)


def test_a_float32_graph_does_not_change(demo_onnx: Path) -> None:
    model = onnx.load(demo_onnx)
    emulation = emulate(model)
    assert emulation.tensors == ()
    assert len(emulation.model.graph.node) == len(model.graph.node)
    assert EmulatedSession(demo_onnx).artifact.manifest.precision == "fp32"


def test_halves_in_a_subgraph_are_refused() -> None:
    body = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.FLOAT16)],
        "body", [], [helper.make_tensor_value_info("i", TensorProto.FLOAT16, None)],
    )  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], name="branch", then_branch=body, else_branch=body)
    with pytest.raises(ExportError, match="If 'branch': half precision in a subgraph"):
        emulate(_graph([node], {}))


def test_linear_layers_become_products() -> None:
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(5, 8, 1, 1)).astype(np.float32)
    constants = (
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(rng.normal(size=5).astype(np.float32), "b"),
        numpy_helper.from_array(np.array([-1, 8, 1, 1]), "pixel"),
        numpy_helper.from_array(np.array([-1, 5]), "row"),
    )
    nodes = [
        helper.make_node("Reshape", ["x", "pixel"], ["p"]),
        helper.make_node("Conv", ["p", "w", "b"], ["c"]),
        helper.make_node("Reshape", ["c", "row"], ["y"]),
    ]
    types = dict.fromkeys(("p", "c"), TensorProto.FLOAT)
    model, x = _graph(nodes, types, constants), rng.normal(size=24).astype(np.float32)
    before = _run(Emulation(model, ()), x)["y"]
    assert products(model) == 1
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Reshape", "Gemm", "Reshape"]
    np.testing.assert_allclose(_run(Emulation(model, ()), x)["y"], before, rtol=1e-5, atol=1e-6)
    assert products(model) == 0


def test_a_real_convolution_of_one_pixel_kernels_stays() -> None:
    weights = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    shape = numpy_helper.from_array(np.array([1, 3, 4, 4]), "s")
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    assert products(_graph(nodes, {"p": TensorProto.FLOAT}, (weights, shape))) == 0
