"""Corrected biases: the means they are made of, what they restore, and how they are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch

from calib.bias_correction import BiasCorrection, InputMeans
from calib.graph.layers import Layer, constant, weighted_layers
from calib.options import QuantizeOptions
from calib.quantizer import Job, prepare
from calib.rounding.weights import along, round_to_nearest, weight_scales
from export.onnx_file import read_onnx
from model.errors import UsageError

Floats = npt.NDArray[np.float32]
OPTIONS = QuantizeOptions(rounding="nearest", preset="fast", correct_bias=True, threads=1)


def _layer(weights: Floats, kind: str = "Conv", **attributes: Any) -> Layer:
    data = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(name="w", const_value=ir.tensor(weights))
    bias = ir.Value(name="b", const_value=ir.tensor(np.zeros(len(weights), np.float32)))
    return Layer(ir.node(kind, [data, weight, bias], attributes, name="one"), "body", False)


@pytest.mark.parametrize(
    ("groups", "stride", "dilation", "padding"),
    [(1, 1, 1, 1), (2, 2, 1, 0), (4, 1, 2, 2), (1, 2, 1, 1)],
)
def test_means_are_those_of_what_a_convolution_multiplies(
    groups: int, stride: int, dilation: int, padding: int
) -> None:
    rng = np.random.default_rng(4)
    weights = rng.standard_normal((8, 4 // groups, 3, 3)).astype(np.float32)
    photos = [rng.random((1, 4, 9, 11)).astype("f4"), rng.random((2, 4, 12, 8)).astype("f4")]
    ways = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [padding] * 4}
    layer = _layer(weights, group=groups, **ways)
    means = InputMeans(layer)
    answers = []
    for data in photos:
        means.observe(data)
        answer = torch.conv2d(
            torch.from_numpy(data), torch.from_numpy(weights), None, stride, padding, dilation,
            groups,
        )  # fmt: skip
        answers.append(answer.movedim(1, 0).reshape(8, -1))
    found = means.means()
    assert found is not None
    np.testing.assert_allclose(
        np.einsum("goc,gc->go", layer.rows(), found).reshape(-1),
        torch.cat(answers, dim=1).mean(dim=1).numpy(),
        atol=1e-5,
    )


@pytest.mark.parametrize("transposed", [0, 1])
def test_means_are_those_of_what_a_linear_layer_multiplies(transposed: int) -> None:
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((6, 6)).astype(np.float32)
    data = rng.random((20, 6)).astype(np.float32)
    layer = _layer(weights, "Gemm", transB=transposed)
    means = InputMeans(layer)
    means.observe(data)
    found = means.means()
    assert found is not None
    answer = data @ (weights.T if transposed else weights)
    np.testing.assert_allclose(
        np.einsum("goc,gc->go", layer.rows(), found)[0], answer.mean(axis=0), atol=1e-5
    )


def test_a_corrected_bias_restores_the_mean_answer() -> None:
    rng = np.random.default_rng(8)
    weights = rng.standard_normal((6, 5, 3, 3)).astype(np.float32)
    data = rng.random((2, 5, 12, 12)).astype(np.float32)  # as behind a ReLU
    layer = _layer(weights, pads=[1] * 4)
    correction = BiasCorrection([layer])
    for _, reader in correction.readers:
        reader.observe(data)
    scales = weight_scales(weights, 0, levels=7)  # coarse, so that it matters
    restored = (round_to_nearest(layer, scales, 7) * along(scales, 0, 4)).astype(np.float32)
    shift = correction(layer, weights - restored)
    assert shift is not None

    def mean_answer(kernel: Floats) -> Floats:
        answer = torch.conv2d(torch.from_numpy(data), torch.from_numpy(kernel), padding=1)
        means: Floats = answer.mean(dim=(0, 2, 3)).numpy()
        return means

    wanted = mean_answer(weights)
    assert np.abs(mean_answer(restored) - wanted).max() > 0.05
    np.testing.assert_allclose(mean_answer(restored) + shift, wanted, atol=1e-4)


def test_a_layer_that_was_not_seen_keeps_its_bias() -> None:
    layer = _layer(np.ones((2, 3, 1, 1), np.float32))
    assert InputMeans(layer).means() is None
    assert BiasCorrection([layer])(layer, layer.weights) is None
    assert BiasCorrection([])(layer, layer.weights) is None


def _job(file: Path, table: Path, scenes: list[Path], options: QuantizeOptions) -> Job:
    return prepare(read_onnx(file), file, table, scenes, options, lambda _: None)


def _inputs(model: ir.Model, place: int) -> dict[str, Floats]:
    """Weights (1) or biases (2) of every layer, as floats, by the layer's node."""
    found = {}
    for node in model.graph:
        if node.op_type not in ("Conv", "Gemm") or len(node.inputs) <= place:
            continue
        value = node.inputs[place]
        assert value is not None
        restore = value.producer()
        if restore is None:
            found[str(node.name)] = constant(value)
            continue
        codes, scales = (constant(restore.inputs[i]) for i in (0, 1))  # type: ignore[arg-type]
        axis = restore.attributes.get_int("axis", 0)
        found[str(node.name)] = codes * along(scales, axis, codes.ndim)
    return found


@pytest.mark.parametrize(
    ("writer", "rest", "step"),
    [
        ("tensorrt", "fp32", 1e-5),
        ("tensorrt", "fp16", 2e-3),
        ("onnxruntime", "fp32", 2e-4),  # whole numbers, in units of data times weights
    ],
)
def test_biases_of_quantised_layers_alone_are_corrected_by_what_their_weights_lost(
    writer: str, rest: Any, step: float, demo_onnx: Path, standard_table: Path, scenes: list[Path]
) -> None:
    options = replace(OPTIONS, writer=writer, rest=rest)
    job = _job(demo_onnx, standard_table, scenes, options)
    layers = {str(one.node.name): one for one in job.layers}
    levels = [name for name, one in layers.items() if one.role == "rpn" and not one.is_predictor]
    chosen = {*levels[:2], *[name for name, one in layers.items() if one.role == "body"][:3]}
    model, _ = job.quantised(chosen)
    plain, _ = replace(job, shift=None).quantised(chosen)
    written, before, weights = _inputs(model, 2), _inputs(plain, 2), _inputs(model, 1)
    # The RPN's other levels share weights and bias with these two, and stay in floating point.
    gained = {name: written[name] - before[name] for name in before}
    assert {name for name in gained if np.abs(gained[name]).max() > 0} == chosen
    assert job.shift is not None
    for name in chosen:
        lost = layers[name].weights - weights[name]
        expected = job.shift(layers[name], lost)
        assert expected is not None
        np.testing.assert_allclose(gained[name], expected, atol=step)
    assert not np.allclose(gained[levels[0]], gained[levels[1]], atol=1e-6)
    assert "corrected-bias" in model.metadata_props["maskport.quantisation"]
    assert len(weighted_layers(job.model.graph)) == len(layers)


def test_it_is_for_int8_from_photos(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--correct-bias: it is for int8"):
        QuantizeOptions(format="fp8", correct_bias=True)
    with pytest.raises(UsageError, match="--correct-bias needs photos"):
        QuantizeOptions(import_cache=tmp_path / "c.cache", correct_bias=True)
