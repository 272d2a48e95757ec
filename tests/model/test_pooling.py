"""The pooling family, eager and static, against float64 loops; and the issue's worked examples."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from model.errors import SpecError
from model.native.level_rule import level_areas
from model.native.operators import StaticOperators
from model.native.options import NativeOptions
from model.ops import OPAQUE, Operators, roi_levels
from model.pooling.plan import sample_budget, worst_case
from model.spec import PoolerSpec
from tests.oracles import pooling as oracle
from tests.pooling_family import (
    ADAPTIVE,
    FAMILY,
    SAMPLINGS,
    PoolInputs,
    exact,
    on_one_level,
    pool_inputs,
)

_FORMS = {"eager": OPAQUE, "static": StaticOperators()}


def _pooled(form: Operators, spec: PoolerSpec, inputs: PoolInputs) -> tuple[np.ndarray, np.ndarray]:
    maps = [torch.tensor(f) for f in inputs.features]
    rois, valid = torch.tensor(inputs.rois), torch.tensor(inputs.valid)
    pooled, cut = form.pyramid_pool(maps, rois, valid, spec)
    return pooled.numpy(), cut.numpy()


def test_every_member_equals_its_loops(subtests: pytest.Subtests) -> None:
    for form, levels, name in product(_FORMS, [4, 1], FAMILY):
        with subtests.test(form=form, levels=levels, name=name):
            spec = FAMILY[name] if levels > 1 else on_one_level(FAMILY[name])
            inputs = pool_inputs(spec, seed=len(name), images=2)
            pooled, cut = _pooled(_FORMS[form], spec, inputs)
            np.testing.assert_allclose(
                pooled, exact(spec, inputs), atol=oracle.float32_error(inputs.features)
            )
            assert cut.tolist() == [0, 0]


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("spare", [0, 500])
def test_chunks_change_no_bit(name: str, spare: int) -> None:
    spec = FAMILY[name]
    inputs = pool_inputs(spec, 3, images=2)
    sides = [f.shape[2:] for f in inputs.features]
    budget = sample_budget(spec, sides, level_areas(spec), None)
    small = StaticOperators(NativeOptions(chunk_bytes=3 * 4 * 2 * 2 * 9 * budget + spare))
    expected, _ = _pooled(StaticOperators(), spec, inputs)
    np.testing.assert_array_equal(_pooled(small, spec, inputs)[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_static_form_is_one_graph_for_a_compiler(name: str) -> None:
    spec = FAMILY[name]
    inputs = pool_inputs(spec, 4)
    tensors = [torch.tensor(a) for a in (*inputs.features, inputs.rois, inputs.valid)]
    static = StaticOperators()

    def pooled(*given: torch.Tensor) -> torch.Tensor:
        return static.pyramid_pool(given[:-2], *given[-2:], spec)[0]

    torch._dynamo.reset()
    compiled = torch.compile(pooled, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), pooled(*tensors), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_samples_cut_counts_valid_rois_beyond_the_budget(name: str) -> None:
    spec = FAMILY[name]
    inputs = pool_inputs(spec, 5, images=3)
    small = StaticOperators(NativeOptions(max_sampling=1))
    pooled, cut = _pooled(small, spec, inputs)
    wrong = (
        np.abs(pooled - exact(spec, inputs)).max(axis=(1, 2, 3)).reshape(inputs.valid.shape) > 1e-3
    )
    assert wrong.any(axis=1).all()
    assert (cut >= wrong.sum(axis=1)).all()
    assert (cut <= inputs.valid.sum(axis=1)).all()
    nothing = PoolInputs(inputs.features, inputs.rois, np.zeros_like(inputs.valid))
    assert _pooled(small, spec, nothing)[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_roi_over_the_budget_gets_as_many_samples_as_allowed(most: int) -> None:
    spec = FAMILY["align-average-adaptive-aligned"]
    inputs = pool_inputs(spec, 7)
    pooled, cut = _pooled(StaticOperators(NativeOptions(max_sampling=most)), spec, inputs)
    levels = roi_levels(torch.tensor(inputs.rois[0]), spec).tolist()
    over = 0
    for row in np.flatnonzero(inputs.valid[0]):
        feature, roi = inputs.features[levels[row]][0].astype(np.float64), inputs.rois[0, row]
        common = roi, spec.output_size, spec.strides[levels[row]], spec.aligned
        counts = oracle.adaptive_counts(*common)
        if counts[0] * counts[1] > most**2:
            over += 1
            counts = min(counts[0], most), min(counts[1], most)
        parts = tuple(oracle.sample_parts(count, "centred") for count in counts)
        np.testing.assert_allclose(
            pooled[row],
            oracle.roi_align(feature, *common, parts, "average"),
            atol=oracle.float32_error(inputs.features),
        )
    assert cut.tolist() == [over]
    assert over > 0


def _long_and_round(
    rng: np.random.Generator, canvas_hw: tuple[int, int], level_side: float
) -> np.ndarray:
    """[R, 4] inside the canvas: of every shape, many just around an area where a level begins."""
    height, width = canvas_hw
    wide = np.exp(rng.uniform(0, np.log(width), 20000))
    area = level_side**2 * rng.choice([0.25, 1.0, 4.0], 20000) * rng.uniform(0.9, 1.02, 20000)
    high = np.where(rng.random(20000) < 0.6, area / wide, rng.uniform(0, height, 20000))
    high = np.clip(high, 0, height)
    corner = rng.random((20000, 2)) * np.stack([width - wide, height - high], axis=1)
    return np.concatenate([corner, corner + np.stack([wide, high], axis=1)], axis=1)


@pytest.mark.parametrize("canvas_hw", [(800, 1344), (1344, 800), (256, 320)], ids=str)
@pytest.mark.parametrize("size", [7, 14])
def test_the_default_budget_is_enough_and_not_too_much(
    canvas_hw: tuple[int, int], size: int
) -> None:
    spec = PoolerSpec(size, 0, True, inner_eps=1e-8, outer_eps=0.0)
    sides = [(canvas_hw[0] // s, canvas_hw[1] // s) for s in spec.strides]
    budget = worst_case(spec, sides, level_areas(spec))
    rois = _long_and_round(np.random.default_rng(1), canvas_hw, 112.0).astype(np.float32)
    height, width = canvas_hw
    rois[0] = [0, 0, width, 9]
    rois[1] = [0, 0, 9, height]
    levels = roi_levels(torch.tensor(rois), spec).tolist()
    needed = max(
        np.prod(oracle.adaptive_counts(roi, size, spec.strides[level], True))
        for roi, level in zip(rois, levels, strict=True)
    )
    assert needed <= budget <= needed * 1.3
    if canvas_hw == (800, 1344):
        assert budget == {7: 48, 14: 24}[size]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_default_budget_cuts_no_roi_inside_the_canvas(name: str) -> None:
    spec, canvas_hw = FAMILY[name], (128, 160)
    maps = pool_inputs(spec, 0, canvas_hw=canvas_hw, channels=1).features
    rois = _long_and_round(np.random.default_rng(2), canvas_hw, 28.0)[:4000]
    rois[::3] = np.round(rois[::3])
    inputs = PoolInputs(maps, rois[None].astype(np.float32), np.ones((1, 4000), bool))
    assert _pooled(StaticOperators(), spec, inputs)[1].tolist() == [0]


def test_limits_of_adaptive_sampling() -> None:
    spec = PoolerSpec(14, 0, True, strides=(16,))
    assert worst_case(spec, [(50, 84)], []) == 4 * 6
    with pytest.raises(SpecError, match=r"adaptive sampling .* needs reduce 'average'"):
        PoolerSpec(7, 0, reduce="max")
    spec = FAMILY["align-average-2-plain"]
    levels = roi_levels(torch.tensor(pool_inputs(spec, 0).rois[0]), spec)
    assert levels.bincount(minlength=4).min() >= 2


def _ramps(side: int) -> list[np.ndarray]:
    """One map [1, 4, side, side]: y, x, -y, -x of each cell."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return [np.stack([y, x, -y, -x])[None]]


def _on_ramps(form: str, spec: PoolerSpec, roi: list[float], side: int) -> np.ndarray:
    rois = np.array([[roi]], np.float32)
    pooled, _ = _pooled(_FORMS[form], spec, PoolInputs(_ramps(side), rois, np.ones((1, 1), bool)))
    return pooled[0]


@pytest.mark.parametrize("form", _FORMS)
def test_worked_example_of_the_first_sample(form: str, subtests: pytest.Subtests) -> None:
    """A box at (192, 296) of 145 x 200 is (6, 9.25) of 4.53 x 6.25 cells; its samples' least y."""
    for placement, first in [("even", (9.94, 6.50)), ("centred", (9.77, 6.38))]:
        with subtests.test(placement=placement):
            spec = PoolerSpec(3, 2, strides=(32,), reduce="max", placement=placement)
            least = -_on_ramps(form, spec, [192, 296, 192 + 145, 296 + 200], 16)[2:, 0, 0]
            np.testing.assert_allclose(least, first, atol=0.005)


@pytest.mark.parametrize("form", _FORMS)
def test_worked_example_of_the_box_in_cells(form: str) -> None:
    spec = PoolerSpec(1, 1, strides=(32,), kind="prroi_pool")
    middle = _on_ramps(form, spec, [192, 296, 337, 496], 20)[:2, 0, 0]
    np.testing.assert_allclose(middle, [9.25 + 6.25 / 2, 6 + 4.53125 / 2], atol=1e-5)


@pytest.mark.parametrize("form", _FORMS)
def test_worked_example_of_overlapping_bins(form: str) -> None:
    """(10, 10)-(124, 124) covers cells 0 to 4; the bins are [0, 3) and [2, 5)."""
    spec = PoolerSpec(2, 2, strides=(32,), kind="roi_pool")
    pooled = _on_ramps(form, spec, [10, 10, 124, 124], 16)
    assert pooled[0, :, 0].tolist() == [2, 4]
    assert (-pooled[2, :, 0]).tolist() == [0, 2]


@pytest.mark.parametrize("form", _FORMS)
def test_worked_example_of_what_roi_pool_loses(form: str) -> None:
    """800 → 25 cells, 665 → 20.78 → 20, 20 / 7 → 2: 14 of 20.78 cells are used."""
    box = [0.0, 0.0, 665.0, 665.0]
    floored = _on_ramps(form, PoolerSpec(7, 2, strides=(32,), kind="roi_pool", quantise="floor"),
                        box, 25)  # fmt: skip
    assert floored[0, :, 0].tolist() == [1, 3, 5, 7, 9, 11, 13]
    rounded = _on_ramps(form, PoolerSpec(7, 2, strides=(32,), kind="roi_pool"), box, 25)
    assert rounded[0, -1, 0] == 21
    aligned = _on_ramps(form, PoolerSpec(7, 2, strides=(32,)), box, 25)
    np.testing.assert_allclose(aligned[0, -1, 0], 665 / 32 * 6.5 / 7, atol=1e-5)


def test_the_integral_of_the_loops_is_the_limit_of_samples() -> None:
    feature = np.random.default_rng(3).normal(size=(1, 6, 7))
    roi = np.array([-3.0, 5.0, 26.0, 21.0])
    parts = oracle.sample_parts(400, "centred")
    y, x = (np.array([roi[a] + (roi[a + 2] - roi[a]) * p for p in parts]) / 4 for a in (1, 0))
    tents = [np.maximum(1 - np.abs(v[:, None] - np.arange(n)), 0) for v, n in ((y, 6), (x, 7))]
    mean = np.einsum("yh,chw,xw->c", tents[0], feature, tents[1]) / 400**2
    actual = oracle.prroi_pool(feature, roi, 1, 4, False)[:, 0, 0]
    np.testing.assert_allclose(actual, mean, atol=1e-5)
