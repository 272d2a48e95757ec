"""Every member of the pooling family in both lowerings, in ONNX Runtime, against float64 loops."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from export.cli_graph_options import native_options
from export.lowering import native, standard
from export.targets import TARGETS
from model.native.operators import StaticOperators
from model.native.options import NativeOptions
from model.ops import RoIPooler, _levels
from model.spec import PoolerSpec
from tests.pooling_family import (
    ADAPTIVE,
    FAMILY,
    FIXED_AVERAGES,
    SAMPLINGS,
    Given,
    exact,
    given,
    on_one_level,
)

ONE_LEVEL = (*ADAPTIVE, "warp-floor-max", "crop-2-stride")
# Averages of a fixed number of samples are in tests/export/test_native_pool.py, on ten pyramids.
NOT_THERE = [name for name in FAMILY if name not in FIXED_AVERAGES]


class _Pool(nn.Module):
    def __init__(self, spec: PoolerSpec) -> None:
        super().__init__()
        self.pool = RoIPooler(spec)

    def forward(self, features: list[Tensor], rois: Tensor, valid: Tensor):
        return self.pool(features, rois, valid)


def _export(spec: PoolerSpec, what: Given, table: dict, dynamic_shapes=None) -> onnx.ModelProto:
    maps = [torch.tensor(f) for f in what.features]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            _Pool(spec),
            (maps, torch.tensor(what.rois), torch.tensor(what.valid)),
            dynamo=True,
            opset_version=18,
            custom_translation_table=table,
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        ).model_proto


@cache
def _native(spec: PoolerSpec, **options: int) -> onnx.ModelProto:
    """For two images; what the maps and RoIs are is no matter."""
    table = native.translations(NativeOptions(**options), 2)
    return _export(spec, given(spec, 0, images=2), table)


def _standard(spec: PoolerSpec, what: Given) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = [
        {0: batch, 2: torch.export.Dim(f"rows_{i}"), 3: torch.export.Dim(f"columns_{i}")}
        for i, _ in enumerate(what.features)
    ]
    dynamic = (shapes, {0: batch}, {0: batch})
    return _export(spec, what, standard.translations(), dynamic)


def _run(model: onnx.ModelProto, *feeds: Given) -> list[tuple[np.ndarray, np.ndarray]]:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    graph = model.SerializeToString()
    session = ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    names = {i.name for i in session.get_inputs()}
    return [
        session.run(None, {n: v for n, v in what.feed().items() if n in names}) for what in feeds
    ]


def _nothing_of(what: Given) -> Given:
    return replace(what, valid=np.zeros_like(what.valid))


@pytest.mark.parametrize("name", FAMILY)
def test_standard_with_any_batch_and_canvas(name: str) -> None:
    spec = replace(FAMILY[name], strides=(8, 16))
    model = _standard(spec, given(spec, 0, images=2))
    onnx.checker.check_model(model)
    one = given(spec, 1)
    three = given(spec, 2, images=3, canvas_hw=(160, 96))
    answers = _run(model, one, three, _nothing_of(one))
    for what, (pooled, cut) in zip((one, three), answers, strict=False):
        np.testing.assert_allclose(pooled, exact(spec, what), atol=3e-5)
        assert cut.dtype == np.int32
        assert cut.tolist() == [0] * len(what.rois)
    assert not answers[2][0].any()


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_standard_on_one_level(name: str) -> None:
    spec = on_one_level(FAMILY[name])
    what = given(spec, 4, images=2)
    ((pooled, _),) = _run(_standard(spec, what), what)
    np.testing.assert_allclose(pooled, exact(spec, what), atol=3e-5)


@pytest.mark.parametrize("name", NOT_THERE)
def test_native_and_its_form_in_pytorch(name: str) -> None:
    spec = FAMILY[name]
    what = given(spec, 5, images=2)
    model = _native(spec)
    answers = _run(model, what, _nothing_of(what))
    np.testing.assert_allclose(answers[0][0], exact(spec, what), atol=3e-5)
    assert answers[0][1].dtype == np.int32
    assert answers[0][1].tolist() == [0, 0]
    assert not answers[1][0].any()
    static, _ = _static(spec, what, NativeOptions())
    np.testing.assert_allclose(answers[0][0], static, atol=1e-5)
    assert [node.op_type for node in model.graph.node].count("GridSample") == 1


def _static(spec: PoolerSpec, what: Given, options: NativeOptions) -> tuple[np.ndarray, np.ndarray]:
    maps = [torch.tensor(f) for f in what.features]
    rois, valid = torch.tensor(what.rois), torch.tensor(what.valid)
    pooled, cut = StaticOperators(options).pyramid_pool(maps, rois, valid, spec)
    return pooled.numpy(), cut.numpy()


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_native_on_one_level(name: str) -> None:
    spec = on_one_level(FAMILY[name])
    what = given(spec, 6, images=2)
    ((pooled, _),) = _run(_native(spec), what)
    np.testing.assert_allclose(pooled, exact(spec, what), atol=3e-5)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_native_rows_that_are_not_valid_may_hold_anything(name: str) -> None:
    spec = FAMILY[name]
    what = given(spec, 7, images=2)
    anything = np.array([np.nan, np.inf, -np.inf, 1e38, 0.0], np.float32)
    noise = np.random.default_rng(8).choice(anything, what.rois.shape)
    noisy = replace(what, rois=np.where(what.valid[..., None], what.rois, noise))
    calm, wild = _run(_native(spec), what, noisy)
    np.testing.assert_array_equal(wild[0], calm[0])
    assert wild[1].tolist() == [0, 0]


@pytest.mark.parametrize("name", SAMPLINGS)
def test_native_samples_read_no_other_level(name: str) -> None:
    """All levels but one are a million: RoIs of that one answer what they answer without them."""
    spec = FAMILY[name]
    what = given(spec, 9, images=2)
    levels = _levels(torch.tensor(what.rois).reshape(-1, 4), spec).numpy()
    loud = [
        replace(
            what,
            features=[f if level == quiet else f + 1e6 for level, f in enumerate(what.features)],
        )
        for quiet in range(4)
    ]
    calm, *noisy = _run(_native(spec), what, *loud)
    for quiet, (pooled, _) in enumerate(noisy):
        rows = levels == quiet
        assert rows.any()
        np.testing.assert_array_equal(pooled[rows], calm[0][rows])


@pytest.mark.parametrize("name", ADAPTIVE)
def test_native_counts_the_samples_that_it_cuts(name: str) -> None:
    spec = FAMILY[name]
    what = given(spec, 10, images=2)
    ((pooled, cut),) = _run(_native(spec, max_sampling=1), what)
    static, expected = _static(spec, what, NativeOptions(max_sampling=1))
    np.testing.assert_array_equal(cut, expected)
    np.testing.assert_allclose(pooled, static, atol=1e-5)
    assert (cut > 0).all()


@pytest.mark.parametrize("name", ADAPTIVE)
def test_native_chunks_change_nothing(name: str) -> None:
    spec = FAMILY[name]
    what = given(spec, 11, images=2)
    pieces = _native(spec, chunk_bytes=20_000)
    assert [node.op_type for node in pieces.graph.node].count("GridSample") > 2
    whole = _run(_native(spec), what)[0][0]
    np.testing.assert_allclose(_run(pieces, what)[0][0], whole, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_tensorrt_rtx_compiles_it(name: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    spec = FAMILY[name]
    graph = _native(spec).SerializeToString()
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, builder.logger)
    assert parser.parse(graph), str(parser.get_error(0))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert plan.nbytes > 10_000


def test_max_sampling_is_said_with_or_without_rounds() -> None:
    target = TARGETS["tensorrt-rtx"]
    assert native_options(None, target, 3) == NativeOptions(max_sampling=3)
    both = NativeOptions(proposal_rounds=5, detection_rounds=6, max_sampling=4)
    assert native_options("5,6", target, 4) == both
    assert native_options(None, target) is None
