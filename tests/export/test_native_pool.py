"""Pooling of the `native` lowering in ONNX Runtime against float64 loops."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from export.lowering.native import translations
from model import ops
from model.errors import ExportError
from model.native.options import NativeOptions
from model.pooling.packing import pack
from model.spec import PoolerSpec
from tests.oracles.roi_align import roi_align


class _Pool(nn.Module):
    def __init__(self, spec: PoolerSpec) -> None:
        super().__init__()
        self.pool = ops.RoIPooler(spec)

    def forward(self, features: list[Tensor], rois: Tensor, valid: Tensor):
        return self.pool(features, rois, valid)


@dataclass(frozen=True, slots=True)
class _Given:
    """Features float32 [N, C, H_l, W_l] each, rois float32 [N, R, 4], valid bool [N, R]."""

    features: list[np.ndarray]
    rois: np.ndarray
    valid: np.ndarray


def _export(spec: PoolerSpec, given: _Given, options: NativeOptions | None = None, **more):
    tensors = [torch.tensor(f) for f in given.features]
    example = (tensors, torch.tensor(given.rois), torch.tensor(given.valid))
    table = translations(options or NativeOptions(), len(given.rois))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            _Pool(spec),
            example,
            dynamo=True,
            opset_version=18,
            custom_translation_table=table,
            verbose=False,
            **more,
        ).model_proto


def _run(model: onnx.ModelProto, given: _Given, dtype: type = np.float32) -> np.ndarray:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    feed = {f"features_{i}": f.astype(dtype) for i, f in enumerate(given.features)}
    feed |= {"rois": given.rois, "valid": given.valid}
    return session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})[0]


def _kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _eager(spec: PoolerSpec, given: _Given) -> np.ndarray:
    maps = [torch.tensor(f) for f in given.features]
    pooled, _ = ops.RoIPooler(spec)(maps, torch.tensor(given.rois), torch.tensor(given.valid))
    return pooled.numpy()


def _unrounded(values: np.ndarray) -> np.ndarray:
    """The fraction of small whole numbers that each float32 stands for; all of these are some."""
    fractions = [Fraction(float(v)).limit_denominator(4096) for v in values.reshape(-1)]
    wide = np.array([float(f) for f in fractions]).reshape(values.shape)
    np.testing.assert_array_equal(wide.astype(np.float32), values)
    return wide


def _in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float64 but for its choice of level; answers the samples, not averaged.

    ONNX Runtime has GridSample in float64 from opset 20 on, AveragePool not at all.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph, double = model.graph, onnx.TensorProto.DOUBLE
    makers = {name: node for node in graph.node for name in node.output}
    level: set[str] = set()
    pending = [node.input[1] for node in graph.node if node.op_type == "Gather"]
    while pending:
        name = pending.pop()
        level.add(name)
        pending.extend(makers[name].input if name in makers else [])
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
    last = _kinds(model).index("GridSample")
    del graph.node[last + 1 :], graph.output[:], graph.value_info[:]
    answer = onnx.helper.make_tensor_value_info(graph.node[last].output[0], double, None)
    graph.output.append(answer)
    model.opset_import[0].version = 20
    return model


def _average(samples: np.ndarray, rois: int, size: int, ratio: int) -> np.ndarray:
    """[1, C, R * P * s, P * s] to [R, C, P, P]."""
    channels = samples.shape[1]
    bins = samples.reshape(channels, rois, size, ratio, size, ratio).mean(axis=(3, 5))
    return bins.transpose(1, 0, 2, 3)


def _levels(rois: np.ndarray, spec: PoolerSpec) -> np.ndarray:
    return ops._levels(torch.tensor(rois), spec).numpy()


def _oracle(spec: PoolerSpec, given: _Given) -> np.ndarray:
    """One image only: float64 [R, C, P, P]."""
    rois, size = given.rois[0], spec.output_size
    wide = [f[0].astype(np.float64) for f in given.features]
    mode = spec.sampling_ratio, spec.aligned
    answers = [
        roi_align(wide[level], roi, size, spec.strides[level], *mode)
        for roi, level in zip(rois, _levels(rois, spec), strict=True)
    ]
    return np.stack(answers)


# RoIs by class, float32 [n, 4] xyxy, canvas pixels.


def _boxes(centres: np.ndarray, sides: np.ndarray) -> np.ndarray:
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)


def _rois_by_class(
    rng: np.random.Generator, canvas_hw: tuple[int, int], spec: PoolerSpec, count: int
) -> dict[str, np.ndarray]:
    canvas = np.array([canvas_hw[1], canvas_hw[0]], np.float64)
    centres = rng.uniform(0, 1, (count, 2)) * canvas
    sides = np.exp(rng.uniform(np.log(16), np.log(canvas.max() / 2), (count, 2)))
    free = _boxes(centres, sides)
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
        "inside": _boxes(np.clip(centres, 70, canvas - 70), np.minimum(sides, 140)),
        "border": edge,
        "partly outside": _boxes(partly, sides),
        "wholly outside": _boxes(canvas / 2 + shift, sides),
        "2 px": _boxes(centres, np.full((count, 2), 2.0)),
        "sub-pixel": _boxes(centres, np.exp(rng.uniform(-4, 0, (count, 2)))),
        "whole image": np.array([[0, 0, *canvas]] * 2),
        "level boundary": _at_boundaries(rng, canvas, spec, count),
    }
    return {name: rois.astype(np.float32) for name, rois in classes.items()}


def _at_boundaries(
    rng: np.random.Generator, canvas: np.ndarray, spec: PoolerSpec, count: int
) -> np.ndarray:
    """Areas where a level begins, or very near; no sample stands exactly on the zero rule."""
    starts = [112.0 * 2**i for i in range(max(len(spec.strides) - 1, 1))]
    side = rng.choice(starts, count) + rng.integers(-2, 3, count) * 2.0**-12
    corner = np.round(rng.uniform(-0.1, 0.6, (count, 2)) * canvas) + 2.0**-6
    stretch = 2.0 ** rng.integers(-1, 2, count)
    end = corner + np.stack([side * stretch, side / stretch], axis=1)
    return np.concatenate([corner, end], axis=1)


@dataclass(frozen=True, slots=True)
class _Pyramid:
    """A canvas and the levels on it; `sides_hw` where they are not the canvas over the stride."""

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
_MODES = [(aligned, ratio) for aligned in (False, True) for ratio in (1, 2, 3, 4)]
# Every sampling on a small canvas, the usual one and another on all others.
_RUNS = [
    pytest.param(name, aligned, ratio, id=f"{name}-{'aligned' if aligned else 'plain'}-{ratio}")
    for index, name in enumerate(_PYRAMIDS)
    for aligned, ratio in _MODES
    if name == "small" or ratio == 2 or (ratio == (1, 3, 4)[index % 3] and not aligned)
]


@dataclass(frozen=True, slots=True)
class _Errors:
    """Largest difference to the float64 loops, by class of RoI; `slope` is the maps' steepest."""

    native: dict[str, float]
    torchvision: dict[str, float]
    native_float64: dict[str, float]
    canvas_cells: int
    slope: float


def _spec(pyramid: _Pyramid, aligned: bool, ratio: int) -> PoolerSpec:
    """Aligned is detectron2's pooler, the other torchvision's."""
    eps = {"inner_eps": 1e-8, "outer_eps": 0.0} if aligned else {}
    return PoolerSpec(7, ratio, aligned, pyramid.strides, **eps)


def _steepest(features: list[np.ndarray]) -> float:
    return max(float(np.abs(np.diff(f, axis=a)).max()) for f in features for a in (2, 3))


@cache
def _measure(name: str, aligned: bool, ratio: int) -> _Errors:
    pyramid = _PYRAMIDS[name]
    rng = np.random.default_rng([list(_PYRAMIDS).index(name), aligned, ratio])
    spec = _spec(pyramid, aligned, ratio)
    classes = _rois_by_class(rng, pyramid.canvas_hw, spec, 12)
    rois = np.concatenate(list(classes.values()))[None]
    given = _Given(pyramid.maps(rng), rois, np.ones(rois.shape[:2], bool))
    model, exact = _export(spec, given), _oracle(spec, given)
    samples = _run(_in_float64(model), given, np.float64)
    answers = (
        _run(model, given),
        _eager(spec, given),
        _average(samples, rois.shape[1], spec.output_size, ratio),
    )
    owners = np.repeat(list(classes), [len(r) for r in classes.values()])
    native, torchvision, float64 = (
        {c: float(np.abs(a - exact)[owners == c].max()) for c in classes} for a in answers
    )
    packed = pack([f.shape[2:] for f in given.features])
    cells = sum(packed.canvas_hw)
    return _Errors(native, torchvision, float64, cells, _steepest(given.features))


def _measure_all(name: str) -> list[_Errors]:
    return [_measure(*run.values) for run in _RUNS if run.values[0] == name]


@pytest.mark.parametrize(("name", "aligned", "ratio"), _RUNS)
def test_the_formula_equals_the_oracle(name: str, aligned: bool, ratio: int) -> None:
    errors = _measure(name, aligned, ratio).native_float64
    assert max(errors.values()) < 1e-9, errors


@pytest.mark.parametrize(("name", "aligned", "ratio"), _RUNS)
def test_float32_errs_by_the_rounding_of_a_place_on_the_canvas(
    name: str, aligned: bool, ratio: int
) -> None:
    found = _measure(name, aligned, ratio)
    assert max(found.native.values()) <= found.canvas_cells * 2.0**-23 * found.slope, found.native
    assert found.native["wholly outside"] == 0


@pytest.mark.parametrize("name", _PYRAMIDS)
def test_float32_errs_at_most_3_times_as_much_as_torchvision(name: str) -> None:
    """Over all classes of RoI and all samplings."""
    found = _measure_all(name)
    ours = max(max(errors.native.values()) for errors in found)
    theirs = max(max(errors.torchvision.values()) for errors in found)
    assert ours <= 3 * theirs


@pytest.mark.parametrize("name", _PYRAMIDS)
def test_and_so_it_does_for_every_kind_of_roi_or_by_half_a_step_of_the_grid(name: str) -> None:
    # torchvision places the samples of whole-image RoIs all but exactly; a ratio says little there.
    found = _measure_all(name)
    step = max(errors.canvas_cells * 2.0**-24 * errors.slope for errors in found)
    over = {}
    for kind in found[0].native:
        ours = max(errors.native[kind] for errors in found)
        theirs = max(errors.torchvision[kind] for errors in found)
        if ours > max(3 * theirs, step / 2):
            over[kind] = f"{ours:.1e} > 3 * {theirs:.1e}"
    assert not over


@pytest.mark.parametrize("canvas_hw", [(800, 1344), (256, 320), (256, 1280), (1344, 800)], ids=str)
@pytest.mark.parametrize("loud", [0, 1, 2, 3])
def test_no_sample_reads_another_level(canvas_hw: tuple[int, int], loud: int) -> None:
    """One level is a million, the others 0: RoIs of those answer 0, not a millionth of it."""
    rng = np.random.default_rng(17)
    pyramid, spec = _Pyramid(canvas_hw), PoolerSpec()
    maps = [np.full_like(f, 1e6 * (i == loud)) for i, f in enumerate(pyramid.maps(rng, 1))]
    classes = _rois_by_class(rng, canvas_hw, spec, 100)
    rois = np.concatenate([*classes.values(), _overhanging(rng, canvas_hw, 200)])[None]
    given = _Given(maps, rois, np.ones(rois.shape[:2], bool))
    quiet = _levels(rois[0], spec) != loud
    assert np.abs(_run(_export(spec, given), given)[quiet]).max() <= 1.0


def _overhanging(rng: np.random.Generator, canvas_hw: tuple[int, int], count: int) -> np.ndarray:
    """Boxes of all sizes that reach over the right, the lower or both edges."""
    canvas = np.array([canvas_hw[1], canvas_hw[0]])
    sides = np.exp(rng.uniform(2, np.log(2 * canvas.max()), (count, 2)))
    end = canvas + rng.uniform(0, 0.5, (count, 2)) * sides
    return np.concatenate([end - sides, end], axis=1).astype(np.float32)


def _three_images(seed: int, spec: PoolerSpec) -> _Given:
    rng = np.random.default_rng(seed)
    pyramid = _Pyramid((160, 224), spec.strides)
    maps = [np.concatenate(m) for m in zip(*(pyramid.maps(rng, 3) for _ in "123"), strict=True)]
    classes = [_rois_by_class(rng, pyramid.canvas_hw, spec, 3) for _ in "123"]
    rois = np.stack([np.concatenate(list(c.values())) for c in classes])
    return _Given(maps, rois, rng.random(rois.shape[:2]) > 0.3)


def test_a_batch_and_its_invalid_rows() -> None:
    spec = PoolerSpec(14, 2)
    given = _three_images(2, spec)
    expected = _eager(spec, given)
    rng = np.random.default_rng(3)
    anything = np.array([np.nan, np.inf, -np.inf, 1e38, 0.0], np.float32)
    rois = np.where(given.valid[..., None], given.rois, rng.choice(anything, given.rois.shape))
    model = _export(spec, given)
    assert _kinds(model).count("GridSample") == 1
    got = _run(model, _Given(given.features, rois, given.valid))
    assert not got[~given.valid.reshape(-1)].any()
    np.testing.assert_allclose(got, expected, atol=3e-5)
    assert not _run(model, _Given(given.features, rois, np.zeros_like(given.valid))).any()


@pytest.mark.parametrize(("rois_at_once", "pieces"), [(1, 23), (5, 5)])
def test_chunks_change_no_bit(rois_at_once: int, pieces: int) -> None:
    spec = PoolerSpec(7, 2)
    given = _three_images(4, spec)
    assert given.rois.shape[1] == 23
    sample_bytes = 4 * 3 * 3 * 14 * 14  # float32, images, channels, samples
    for spare in (0, sample_bytes - 1):
        options = NativeOptions(chunk_bytes=rois_at_once * sample_bytes + spare)
        model = _export(spec, given, options)
        assert _kinds(model).count("GridSample") == pieces
        np.testing.assert_array_equal(_run(model, given), _run(_export(spec, given), given))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _refusal(spec: PoolerSpec, **more) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the exporter wraps the refusal
        _export(spec, _three_images(5, spec), **more)
    return next(str(e) for e in _causes(caught.value) if isinstance(e, ExportError))


def test_a_canvas_of_any_size_is_refused() -> None:
    shapes = ([{2: torch.export.Dim("tall", min=8, max=999)}], None, None)
    assert "fixed size" in _refusal(PoolerSpec(strides=(4,)), dynamic_shapes=shapes)
