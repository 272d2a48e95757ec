"""Pooling of the `native` lowering in ONNX Runtime against float64 loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import numpy as np
import onnx
import pytest
import torch

from export.lowering.native import translations
from model import ops
from model.errors import ExportError
from model.native.options import NativeOptions
from model.spec import PoolerSpec
from tests.exported_operators import Pool, exported, op_counts, run
from tests.oracles.pooling import float32_error
from tests.oracles.roi_align import roi_align
from tests.pooling_family import PoolInputs


def _export(
    spec: PoolerSpec,
    inputs: PoolInputs,
    options: NativeOptions | None = None,
    dynamic_shapes: object = None,
) -> onnx.ModelProto:
    maps = [torch.tensor(feature) for feature in inputs.features]
    example = (maps, torch.tensor(inputs.rois), torch.tensor(inputs.valid))
    table = translations(options or NativeOptions(), len(inputs.rois))
    return exported(Pool(spec), example, table, dynamic_shapes)


def _run(model: onnx.ModelProto, inputs: PoolInputs) -> np.ndarray:
    return run(model, inputs.feed())[0][0]


def _eager(spec: PoolerSpec, inputs: PoolInputs) -> np.ndarray:
    maps = [torch.tensor(f) for f in inputs.features]
    pooled, _ = ops.RoIPooler(spec)(maps, torch.tensor(inputs.rois), torch.tensor(inputs.valid))
    return pooled.numpy()


def _unrounded(values: np.ndarray) -> np.ndarray:
    """The fraction of small integers that each float32 value was rounded from."""
    fractions = [Fraction(float(v)).limit_denominator(4096) for v in values.reshape(-1)]
    wide = np.array([float(f) for f in fractions]).reshape(values.shape)
    np.testing.assert_array_equal(wide.astype(np.float32), values)
    return wide


def _in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float64 except for the choice of the level; outputs the samples.

    ONNX Runtime has a float64 GridSample from opset 20 on, and no float64 AveragePool.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph, double = model.graph, onnx.TensorProto.DOUBLE
    producers = {name: node for node in graph.node for name in node.output}
    level: set[str] = set()
    pending = [node.input[1] for node in graph.node if node.op_type == "Gather"]
    while pending:
        name = pending.pop()
        level.add(name)
        pending.extend(producers[name].input if name in producers else [])
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name not in level:
            wide = _unrounded(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    for value in graph.input:
        if value.name.startswith("features"):
            value.type.tensor_type.elem_type = double
    for node in graph.node:
        if not level.intersection(node.output):
            node.input[:] = ["rois64" if name == "rois" else name for name in node.input]
        if node.op_type == "GridSample":
            node.attribute[[a.name for a in node.attribute].index("mode")].s = b"linear"
    graph.node.insert(0, onnx.helper.make_node("Cast", ["rois"], ["rois64"], to=double))
    last = next(i for i, node in enumerate(graph.node) if node.op_type == "GridSample")
    del graph.node[last + 1 :], graph.output[:], graph.value_info[:]
    samples = onnx.helper.make_tensor_value_info(graph.node[last].output[0], double, None)
    graph.output.append(samples)
    model.opset_import[0].version = 20
    return model


def _average(samples: np.ndarray, rois: int, size: int, ratio: int) -> np.ndarray:
    """[1, C, R * P * s, P * s] to [R, C, P, P]."""
    channels = samples.shape[1]
    bins = samples.reshape(channels, rois, size, ratio, size, ratio).mean(axis=(3, 5))
    return bins.transpose(1, 0, 2, 3)


def _levels(rois: np.ndarray, spec: PoolerSpec) -> np.ndarray:
    return ops.roi_levels(torch.tensor(rois), spec).numpy()


def _oracle(spec: PoolerSpec, inputs: PoolInputs) -> np.ndarray:
    """One image only: float64 [R, C, P, P]."""
    maps = [f[0].astype(np.float64) for f in inputs.features]
    sampling = spec.sampling_ratio, spec.aligned
    levels = _levels(inputs.rois[0], spec)
    return np.stack(
        [
            roi_align(maps[level], roi, spec.output_size, spec.strides[level], *sampling)
            for roi, level in zip(inputs.rois[0], levels, strict=True)
        ]
    )


def _boxes(centers: np.ndarray, sides: np.ndarray) -> np.ndarray:
    return np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)


def _rois_by_class(
    rng: np.random.Generator, canvas_hw: tuple[int, int], spec: PoolerSpec, count: int
) -> dict[str, np.ndarray]:
    """Float32 [n, 4] xyxy RoIs in canvas pixels, by class."""
    canvas = np.array([canvas_hw[1], canvas_hw[0]], np.float64)
    centers = rng.uniform(0, 1, (count, 2)) * canvas
    sides = np.exp(rng.uniform(np.log(16), np.log(canvas.max() / 2), (count, 2)))
    free = _boxes(centers, sides)
    # One side at the edge of the canvas, some of them thin.
    edge = np.clip(free, 0, np.tile(canvas, 2))
    rows, side = np.arange(count), np.arange(count) % 4
    depth = np.exp(rng.uniform(-3, 4, count))
    limit = np.where(side < 2, 0.0, np.tile(canvas, 2)[side])
    edge[rows, side] = limit
    edge[rows, (side + 2) % 4] = np.abs(limit - depth)
    away = np.sign(rng.normal(size=(count, 2))) * (canvas + sides) * rng.uniform(0.55, 2)
    shift = np.where(rows[:, None] % 2 == 0, [1, 0], [0, 1]) * away
    partly = np.round(rng.uniform(size=(count, 2))) * canvas + rng.normal(0, 12, (count, 2))
    classes = {
        "inside": _boxes(np.clip(centers, 70, canvas - 70), np.minimum(sides, 140)),
        "border": edge,
        "partly outside": _boxes(partly, sides),
        "wholly outside": _boxes(canvas / 2 + shift, sides),
        "2 px": _boxes(centers, np.full((count, 2), 2.0)),
        "sub-pixel": _boxes(centers, np.exp(rng.uniform(-4, 0, (count, 2)))),
        "whole image": np.array([[0, 0, *canvas]] * 2),
        "level boundary": _at_boundaries(rng, canvas, spec, count),
    }
    return {name: rois.astype(np.float32) for name, rois in classes.items()}


def _at_boundaries(
    rng: np.random.Generator, canvas: np.ndarray, spec: PoolerSpec, count: int
) -> np.ndarray:
    """Areas at or very near the start of a level; no sample is exactly where samples become 0."""
    starts = [112.0 * 2**i for i in range(max(len(spec.strides) - 1, 1))]
    side = rng.choice(starts, count) + rng.integers(-2, 3, count) * 2.0**-12
    corner = np.round(rng.uniform(-0.1, 0.6, (count, 2)) * canvas) + 2.0**-6
    stretch = 2.0 ** rng.integers(-1, 2, count)
    end = corner + np.stack([side * stretch, side / stretch], axis=1)
    return np.concatenate([corner, end], axis=1)


@dataclass(frozen=True, slots=True)
class _Pyramid:
    """A canvas and its levels; `sides_hw` if they are not the canvas divided by the stride."""

    canvas_hw: tuple[int, int]
    strides: tuple[int, ...] = (4, 8, 16, 32)
    sides_hw: tuple[tuple[int, int], ...] = ()

    def maps(self, rng: np.random.Generator, channels: int = 2) -> list[np.ndarray]:
        """Float32 [1, C, H_l, W_l] from a normal distribution."""
        height, width = self.canvas_hw
        sides = self.sides_hw or tuple((height // s, width // s) for s in self.strides)
        return [rng.normal(size=(1, channels, *hw)).astype(np.float32) for hw in sides]


_PYRAMIDS = {
    "landscape": _Pyramid((800, 1344)),
    "portrait": _Pyramid((1344, 800)),
    "small": _Pyramid((256, 320)),
    "odd-sides": _Pyramid((404, 300), sides_hw=((101, 75), (51, 38), (26, 19), (13, 10))),
    "1-level": _Pyramid((512, 640), (16,)),
    "2-levels": _Pyramid((512, 640), (4, 8)),
    "3-levels": _Pyramid((512, 640), (8, 16, 32)),
    "5-levels": _Pyramid((512, 640), (4, 8, 16, 32, 64)),
    "2-equal-strides": _Pyramid((512, 640), (32, 32)),
    "2-equal-sides": _Pyramid((512, 640), (16, 32), ((32, 40), (32, 40))),
}
_MODES = [(aligned, ratio) for ratio in (1, 2, 3, 4) for aligned in (False, True)]
# Each pyramid once and each mode at least once; all products are slow.
_RUNS = [
    pytest.param(
        *(name, aligned, ratio),
        id=f"{name}-{'aligned' if aligned else 'plain'}-{ratio}",
        marks=[] if mode == index % len(_MODES) else pytest.mark.slow,
    )
    for index, name in enumerate(_PYRAMIDS)
    for mode, (aligned, ratio) in enumerate(_MODES)
]


@pytest.mark.parametrize(("name", "aligned", "ratio"), _RUNS)
def test_it_equals_the_oracle_up_to_rounding(name: str, aligned: bool, ratio: int) -> None:
    """In float64 exactly; in float32 as closely as rounded positions allow."""
    pyramid = _PYRAMIDS[name]
    rng = np.random.default_rng([list(_PYRAMIDS).index(name), aligned, ratio])
    # Aligned is detectron2's pooler, the other torchvision's.
    eps = {"inner_eps": 1e-8, "outer_eps": 0.0} if aligned else {}
    spec = PoolerSpec(7, ratio, aligned, pyramid.strides, **eps)
    classes = _rois_by_class(rng, pyramid.canvas_hw, spec, 12)
    rois = np.concatenate(list(classes.values()))[None]
    inputs = PoolInputs(pyramid.maps(rng), rois, np.ones(rois.shape[:2], bool))
    model, exact = _export(spec, inputs), _oracle(spec, inputs)
    owners = np.repeat(list(classes), [len(r) for r in classes.values()])

    def errors(pooled: np.ndarray) -> dict[str, float]:
        return {c: float(np.abs(pooled - exact)[owners == c].max()) for c in classes}

    in_float64 = replace(inputs, features=[f.astype(np.float64) for f in inputs.features])
    samples = _run(_in_float64(model), in_float64)
    assert max(errors(_average(samples, rois.shape[1], 7, ratio)).values()) < 1e-9

    native = errors(_run(model, inputs))
    assert max(native.values()) <= float32_error(inputs.features)
    assert native["wholly outside"] == 0


@cache
def _one_channel(canvas_hw: tuple[int, int]) -> tuple[onnx.ModelProto, PoolInputs]:
    """A graph for 4 levels, and RoIs of all classes and beyond the edges."""
    rng, spec = np.random.default_rng(17), PoolerSpec()
    maps = _Pyramid(canvas_hw).maps(rng, 1)
    classes = _rois_by_class(rng, canvas_hw, spec, 100)
    rois = np.concatenate([*classes.values(), _overhanging(rng, canvas_hw, 200)])[None]
    inputs = PoolInputs(maps, rois, np.ones(rois.shape[:2], bool))
    return _export(spec, inputs), inputs


@pytest.mark.parametrize("loud", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "canvas_hw",
    [
        (256, 320),
        (256, 1280),
        pytest.param((800, 1344), marks=pytest.mark.slow),
        pytest.param((1344, 800), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_no_sample_reads_another_level(canvas_hw: tuple[int, int], loud: int) -> None:
    """One level is a million, the others 0: RoIs of the others give 0."""
    model, inputs = _one_channel(canvas_hw)
    maps = [np.full_like(f, 1e6 * (i == loud)) for i, f in enumerate(inputs.features)]
    quiet = _levels(inputs.rois[0], PoolerSpec()) != loud
    assert np.abs(_run(model, replace(inputs, features=maps))[quiet]).max() <= 1.0


def _overhanging(rng: np.random.Generator, canvas_hw: tuple[int, int], count: int) -> np.ndarray:
    """Boxes of all sizes that reach over the right, the lower or both edges."""
    canvas = np.array([canvas_hw[1], canvas_hw[0]])
    sides = np.exp(rng.uniform(2, np.log(2 * canvas.max()), (count, 2)))
    end = canvas + rng.uniform(0, 0.5, (count, 2)) * sides
    return np.concatenate([end - sides, end], axis=1).astype(np.float32)


def _three_images(seed: int, spec: PoolerSpec) -> PoolInputs:
    rng = np.random.default_rng(seed)
    pyramid = _Pyramid((160, 224), spec.strides)
    maps = [np.concatenate(m) for m in zip(*(pyramid.maps(rng, 3) for _ in "123"), strict=True)]
    classes = [_rois_by_class(rng, pyramid.canvas_hw, spec, 3) for _ in "123"]
    rois = np.stack([np.concatenate(list(c.values())) for c in classes])
    return PoolInputs(maps, rois, rng.random(rois.shape[:2]) > 0.3)


def test_a_batch_and_its_invalid_rows() -> None:
    spec = PoolerSpec(14, 2)
    inputs = _three_images(2, spec)
    expected = _eager(spec, inputs)
    rng = np.random.default_rng(3)
    anything = np.array([np.nan, np.inf, -np.inf, 1e38, 0.0], np.float32)
    rois = np.where(inputs.valid[..., None], inputs.rois, rng.choice(anything, inputs.rois.shape))
    model = _export(spec, inputs)
    assert op_counts(model)["GridSample"] == 1
    pooled = _run(model, replace(inputs, rois=rois))
    assert not pooled[~inputs.valid.reshape(-1)].any()
    np.testing.assert_allclose(pooled, expected, atol=float32_error(inputs.features))
    assert not _run(model, replace(inputs, rois=rois, valid=np.zeros_like(inputs.valid))).any()


def test_chunks_change_no_bit() -> None:
    spec = PoolerSpec(7, 2)
    inputs = _three_images(4, spec)
    assert inputs.rois.shape[1] == 23
    whole = _run(_export(spec, inputs), inputs)
    sample_bytes = 4 * 3 * 3 * 14 * 14  # float32, images, channels, samples
    for rois_at_once, spare, pieces in ((1, sample_bytes - 1, 23), (5, 0, 5)):
        options = NativeOptions(chunk_bytes=rois_at_once * sample_bytes + spare)
        model = _export(spec, inputs, options)
        assert op_counts(model)["GridSample"] == pieces
        np.testing.assert_array_equal(_run(model, inputs), whole)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def test_a_dynamic_canvas_is_refused() -> None:
    shapes = ([{2: torch.export.Dim("tall", min=8, max=999)}], None, None)
    spec = PoolerSpec(strides=(4,))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the exporter wraps the refusal
        _export(spec, _three_images(5, spec), dynamic_shapes=shapes)
    assert any(
        isinstance(e, ExportError) and "expected a fixed canvas" in str(e)
        for e in _causes(caught.value)
    )
