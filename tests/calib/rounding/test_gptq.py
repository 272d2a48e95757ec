"""GPTQ against rounding to nearest, Hessians, and scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch

from calib.graph.formats import INT8
from calib.graph.layers import Layer
from calib.rounding.gptq import InputHessian, gptq
from calib.rounding.weights import WeightQuantizer, along, weight_scales

Floats = npt.NDArray[np.float32]


def _inputs(columns: int, count: int = 4000, seed: int = 0) -> Floats:
    """Correlated inputs, like neighboring pixels."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((count, columns)).cumsum(axis=1)
    return (mixed / np.sqrt(columns)).astype(np.float32)


def _layer(weights: Floats, op_type: str = "Conv", **attributes: Any) -> Layer:
    data = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(name="w", const_value=ir.tensor(weights))
    node = ir.node(op_type, [data, weight], attributes)
    return Layer(node, "body", False)


def _noise(inputs: Floats, weights: Floats, integers: npt.NDArray[np.int8], steps: Floats) -> float:
    return float(np.square(inputs @ (integers * steps[:, None] - weights).T).mean())


@pytest.mark.parametrize("columns", [12, 130, 300])
def test_it_beats_rounding_to_nearest_on_other_inputs(columns: int) -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((16, columns)).astype(np.float32)
    steps = (np.abs(weights).max(axis=1) / 15).astype(np.float32)  # coarse, so that it matters
    known, other = _inputs(columns), _inputs(columns, seed=5)
    codes = gptq(weights, steps, known.T @ known / np.float32(len(known)))
    nearest = np.clip(np.rint(weights / steps[:, None]), -127, 127).astype(np.int8)
    assert _noise(other, weights, codes, steps) < 0.7 * _noise(other, weights, nearest, steps)


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    weights = np.random.default_rng(2).standard_normal((8, 200)).astype(np.float32)
    steps = weight_scales(weights, 0, search=False)
    codes = gptq(weights, steps, np.eye(200, dtype=np.float32))
    np.testing.assert_array_equal(codes, np.rint(weights / steps[:, None]))


def test_inputs_that_are_always_zero_do_not_matter() -> None:
    weights = np.random.default_rng(3).standard_normal((4, 10)).astype(np.float32)
    steps = weight_scales(weights, 0)
    codes = gptq(weights, steps, np.zeros((10, 10), np.float32))
    expected = np.clip(np.rint(weights / steps[:, None]), -127, 127)
    np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize(
    ("groups", "stride", "dilation", "padding"), [(1, 1, 1, 1), (2, 2, 1, 0), (4, 1, 2, 2)]
)
def test_the_hessian_is_that_of_a_convolutions_inputs(
    groups: int, stride: int, dilation: int, padding: int
) -> None:
    rng = np.random.default_rng(4)
    weights = rng.standard_normal((8, 4 // groups, 3, 3)).astype(np.float32)
    data = rng.standard_normal((2, 4, 9, 11)).astype(np.float32)
    layer = _layer(
        weights,
        group=groups,
        strides=[stride, stride],
        dilations=[dilation, dilation],
        pads=[padding] * 4,
    )
    hessian = InputHessian(layer)
    hessian.observe(data)
    output = torch.conv2d(
        torch.from_numpy(data),
        torch.from_numpy(weights),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )
    rows = layer.rows()
    for group, columns, mean in hessian.blocks():
        assert columns == slice(0, rows.shape[2])
        # w (x xT) wT is the mean square of the output.
        actual = np.einsum("oc,cd,od->o", rows[group], mean, rows[group])
        of_group = output[:, group * len(rows[group]) : (group + 1) * len(rows[group])]
        expected = of_group.square().mean(dim=(0, 2, 3)).numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_rows_and_back() -> None:
    weights = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    for layer in (
        _layer(weights),
        _layer(weights.reshape(2, 12), "Gemm", transB=1),
        _layer(weights.reshape(2, 12), "Gemm"),
    ):
        np.testing.assert_array_equal(layer.from_rows(layer.rows()), layer.weights)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_a_searched_scale_is_never_worse(axis: int | None) -> None:
    rng = np.random.default_rng(6)
    weights = rng.laplace(size=(6, 40)).astype(np.float32)
    weights[2, 3] = 60.0

    def error(scales: Floats) -> float:
        wide = along(scales, axis, 2)
        codes = INT8.weight_codes(weights / wide).astype(np.float32)
        return float(np.square(codes * wide - weights).sum())

    plain, searched = (weight_scales(weights, axis, search=search) for search in (False, True))
    assert error(searched) <= error(plain)
    assert np.isfinite(searched).all()
    assert (searched > 0).all()


def test_a_channel_of_zeros_has_a_scale() -> None:
    layer = _layer(np.zeros((2, 3, 1, 1), np.float32))
    weights = WeightQuantizer().quantize(layer, INT8)
    assert (weights.scales > 0).all()
    assert not weights.codes.any()
