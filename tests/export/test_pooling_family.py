"""Every pooler in both lowerings, in ONNX Runtime, against float64 loops."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
import torch

from export.cli_graph_options import native_options
from export.lowering import native, standard
from export.targets import TARGETS
from model.native.operators import StaticOperators
from model.native.options import NativeOptions
from model.ops import roi_levels
from model.spec import PoolerSpec
from tests.exported_operators import Pool, exported, op_counts, run
from tests.oracles.pooling import float32_error
from tests.pooling_family import (
    ADAPTIVE,
    FAMILY,
    FIXED_AVERAGES,
    SAMPLINGS,
    PoolInputs,
    exact,
    on_one_level,
    pool_inputs,
)


def _rows(names: Iterable[str], quick: tuple[str, ...]) -> list[object]:
    """All names; those outside `quick` are slow."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


# One per pooler; test_native_pool.py covers the averages of a fixed number of samples.
QUICK = (
    "align-average-adaptive-aligned", "align-max-2", "align-even-average", "pool-round",
    "pool-floor", "warp-round-max", "crop-1-image", "crop-2-stride", "precise-plain",
)  # fmt: skip
STANDARD = _rows(FAMILY, (*QUICK, "align-average-2-plain"))
NATIVE = _rows([name for name in FAMILY if name not in FIXED_AVERAGES], QUICK)
ONE_LEVEL = _rows(
    (*ADAPTIVE, "warp-floor-max", "crop-2-stride"),
    ("align-average-adaptive-aligned", "pool-floor", "precise-plain"),
)
# The forms of samples that QUICK exports already, so that no further export is made.
FORMS = _rows(SAMPLINGS, QUICK)
CUT = _rows(ADAPTIVE, ("align-average-adaptive-aligned", "pool-floor", "precise-plain"))


def _export(
    spec: PoolerSpec, inputs: PoolInputs, table: dict, dynamic_shapes: object = None
) -> onnx.ModelProto:
    maps = [torch.tensor(f) for f in inputs.features]
    example = (maps, torch.tensor(inputs.rois), torch.tensor(inputs.valid))
    return exported(Pool(spec), example, table, dynamic_shapes)


@cache
def _native(spec: PoolerSpec, **options: int) -> onnx.ModelProto:
    """For two images."""
    table = native.translations(NativeOptions(**options), 2)
    return _export(spec, pool_inputs(spec, 0, images=2), table)


def _standard(spec: PoolerSpec, inputs: PoolInputs) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = [
        {0: batch, 2: torch.export.Dim(f"rows_{i}"), 3: torch.export.Dim(f"columns_{i}")}
        for i, _ in enumerate(inputs.features)
    ]
    dynamic = (shapes, {0: batch}, {0: batch})
    return _export(spec, inputs, standard.translations(), dynamic)


def _run(model: onnx.ModelProto, *feeds: PoolInputs) -> list[list[np.ndarray]]:
    return run(model, *(inputs.feed() for inputs in feeds))


def _all_invalid(inputs: PoolInputs) -> PoolInputs:
    return replace(inputs, valid=np.zeros_like(inputs.valid))


@pytest.mark.parametrize("name", STANDARD)
def test_standard_with_any_batch_and_canvas(name: str) -> None:
    spec = replace(FAMILY[name], strides=(8, 16))
    model = _standard(spec, pool_inputs(spec, 0, images=2))
    onnx.checker.check_model(model)
    one = pool_inputs(spec, 1)
    three = pool_inputs(spec, 2, images=3, canvas_hw=(160, 96))
    outputs = _run(model, one, three, _all_invalid(one))
    for inputs, (pooled, cut) in zip((one, three), outputs, strict=False):
        np.testing.assert_allclose(pooled, exact(spec, inputs), atol=float32_error(inputs.features))
        assert cut.dtype == np.int32
        assert cut.tolist() == [0] * len(inputs.rois)
    assert not outputs[2][0].any()


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_standard_on_one_level(name: str) -> None:
    spec = on_one_level(FAMILY[name])
    inputs = pool_inputs(spec, 4, images=2)
    ((pooled, _),) = _run(_standard(spec, inputs), inputs)
    np.testing.assert_allclose(pooled, exact(spec, inputs), atol=float32_error(inputs.features))


@pytest.mark.parametrize("name", NATIVE)
def test_native_and_its_form_in_pytorch(name: str) -> None:
    spec = FAMILY[name]
    inputs = pool_inputs(spec, 5, images=2)
    model = _native(spec)
    outputs = _run(model, inputs, _all_invalid(inputs))
    np.testing.assert_allclose(
        outputs[0][0], exact(spec, inputs), atol=float32_error(inputs.features)
    )
    assert outputs[0][1].dtype == np.int32
    assert outputs[0][1].tolist() == [0, 0]
    assert not outputs[1][0].any()
    static, _ = _static(spec, inputs, NativeOptions())
    np.testing.assert_allclose(outputs[0][0], static, atol=float32_error(inputs.features))
    assert op_counts(model)["GridSample"] == 1


def _static(
    spec: PoolerSpec, inputs: PoolInputs, options: NativeOptions
) -> tuple[np.ndarray, np.ndarray]:
    maps = [torch.tensor(f) for f in inputs.features]
    rois, valid = torch.tensor(inputs.rois), torch.tensor(inputs.valid)
    pooled, cut = StaticOperators(options).pyramid_pool(maps, rois, valid, spec)
    return pooled.numpy(), cut.numpy()


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_native_on_one_level(name: str) -> None:
    spec = on_one_level(FAMILY[name])
    inputs = pool_inputs(spec, 6, images=2)
    ((pooled, _),) = _run(_native(spec), inputs)
    np.testing.assert_allclose(pooled, exact(spec, inputs), atol=float32_error(inputs.features))


@pytest.mark.parametrize("name", FORMS)
def test_native_invalid_rows_can_contain_anything(name: str) -> None:
    spec = FAMILY[name]
    inputs = pool_inputs(spec, 7, images=2)
    anything = np.array([np.nan, np.inf, -np.inf, 1e38, 0.0], np.float32)
    noise = np.random.default_rng(8).choice(anything, inputs.rois.shape)
    noisy = replace(inputs, rois=np.where(inputs.valid[..., None], inputs.rois, noise))
    calm, wild = _run(_native(spec), inputs, noisy)
    np.testing.assert_array_equal(wild[0], calm[0])
    assert wild[1].tolist() == [0, 0]


@pytest.mark.parametrize("name", FORMS)
def test_native_samples_read_no_other_level(name: str) -> None:
    """All levels but one are raised by a million: the RoIs of that one do not change."""
    spec = FAMILY[name]
    inputs = pool_inputs(spec, 9, images=2)
    levels = roi_levels(torch.tensor(inputs.rois).reshape(-1, 4), spec).numpy()
    loud = [
        replace(
            inputs,
            features=[f if level == quiet else f + 1e6 for level, f in enumerate(inputs.features)],
        )
        for quiet in range(4)
    ]
    calm, *noisy = _run(_native(spec), inputs, *loud)
    for quiet, (pooled, _) in enumerate(noisy):
        rows = levels == quiet
        assert rows.any()
        np.testing.assert_array_equal(pooled[rows], calm[0][rows])


@pytest.mark.parametrize("name", CUT)
def test_native_counts_cut_rois(name: str) -> None:
    spec = FAMILY[name]
    inputs = pool_inputs(spec, 10, images=2)
    ((pooled, cut),) = _run(_native(spec, max_sampling=1), inputs)
    static, expected = _static(spec, inputs, NativeOptions(max_sampling=1))
    np.testing.assert_array_equal(cut, expected)
    np.testing.assert_allclose(pooled, static, atol=float32_error(inputs.features))
    assert (cut > 0).all()


@pytest.mark.parametrize("name", CUT)
def test_native_chunks_change_nothing(name: str) -> None:
    spec = FAMILY[name]
    inputs = pool_inputs(spec, 11, images=2)
    pieces = _native(spec, chunk_bytes=20_000)
    assert op_counts(pieces)["GridSample"] > 2
    whole = _run(_native(spec), inputs)[0][0]
    np.testing.assert_allclose(_run(pieces, inputs)[0][0], whole, atol=1e-5)


@pytest.mark.parametrize("name", FORMS)
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


def test_max_sampling_with_and_without_rounds() -> None:
    target = TARGETS["tensorrt-rtx"]
    assert native_options(None, target, 3) == NativeOptions(max_sampling=3)
    both = NativeOptions(proposal_rounds=5, detection_rounds=6, max_sampling=4)
    assert native_options("5,6", target, 4) == both
    assert native_options(None, target) is None
