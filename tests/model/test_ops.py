"""The two operators' eager bodies against obvious loops and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.ops import RoIPooler, pyramid_levels
from model.spec import PoolerSpec
from tests.oracles.pooling import float32_error
from tests.oracles.roi_align import greedy_nms, pyramid_level, roi_align


def _pool(features: list[np.ndarray], rois: np.ndarray, spec: PoolerSpec) -> np.ndarray:
    maps = [torch.tensor(f, dtype=torch.float32)[None] for f in features]
    boxes = torch.tensor(rois, dtype=torch.float32)[None]
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool)
    return RoIPooler(spec)(maps, boxes, valid)[0].numpy()


def test_the_worked_roialign_example() -> None:
    """(10, 10)-(124, 124) at stride 32 is (0.3125, 0.3125)-(3.875, 3.875), pooled to 2x2.

    Bins are 1.78125 wide; one sample per bin is at its center: 1.203125 and 2.984375. On
    the plane f(y, x) = 10 y + x bilinear sampling is exact, so nothing is rounded anywhere.
    """
    y, x = np.mgrid[0:5, 0:5].astype(np.float64)
    plane = (10 * y + x)[None]
    spec = PoolerSpec(output_size=2, sampling_ratio=1, strides=(32,))
    centers = np.array([0.3125 + 0.5 * 1.78125, 0.3125 + 1.5 * 1.78125])
    assert centers.tolist() == [1.203125, 2.984375]
    by_hand = 10 * centers[:, None] + centers[None, :]
    pooled = _pool([plane], np.array([[10.0, 10.0, 124.0, 124.0]]), spec)
    np.testing.assert_allclose(pooled[0, 0], by_hand, rtol=1e-6)
    spec = PoolerSpec(output_size=2, sampling_ratio=2, strides=(32,))
    pooled = _pool([(10 * y + x)[None]], np.array([[10.0, 10.0, 124.0, 124.0]]), spec)
    assert pooled[0, 0, 0, 0] == pytest.approx(11 * 1.203125, rel=1e-6)
    assert pooled[0, 0, 1, 1] == pytest.approx(11 * 2.984375, rel=1e-6)


def test_the_level_rule_at_its_boundaries(subtests: pytest.Subtests) -> None:
    for case, side, level in [
        ("just-under-112", 111.9, 2),
        ("112", 112.0, 3),
        ("just-under-224", 223.9, 3),
        ("224-is-the-canonical-box", 224.0, 4),
        ("just-under-448", 447.9, 4),
        ("448", 448.0, 5),
        ("clamped-to-the-coarsest", 4000.0, 5),
        ("clamped-to-the-finest", 1.0, 2),
        ("empty", 0.0, 2),
    ]:
        with subtests.test(case):
            rois = torch.tensor([[10.0, 20.0, 10.0 + side, 20.0 + side]])
            actual = pyramid_levels(rois, 4, 2, 224.0, 4, 0.0, 1e-6)
            assert int(actual[0]) + 2 == level
            if 1.0 < side < 4000.0:
                assert (
                    pyramid_level(rois[0].double().numpy() + np.array([0, 0, 1e-9, 1e-9]), 4, 224.0)
                    == level
                )


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3, 0])
@pytest.mark.parametrize("aligned", [False, True])
def test_pooling_equals_the_oracle(sampling_ratio: int, aligned: bool) -> None:
    rng = np.random.default_rng(3)
    features = [rng.normal(size=(3, 40 // s + 1, 56 // s)) for s in (1, 2, 4, 8)]
    rois = np.array(
        [
            [3.0, 4.0, 60.0, 50.0],
            [-20.0, -10.0, 30.0, 12.0],
            [200.0, 130.0, 260.0, 200.0],
            [500.0, 500.0, 520.0, 530.0],
            [10.2, 10.3, 10.4, 10.9],
            [0.0, 0.0, 224.0, 160.0],
            [30.0, 8.0, 150.0, 120.0],
        ]
    )
    spec = PoolerSpec(output_size=3, sampling_ratio=sampling_ratio, aligned=aligned)
    pooled = _pool(features, rois, spec)
    for row, roi in enumerate(rois):
        level = min(max(pyramid_level(roi, 4, 224.0), 2), 5) - 2
        stride = spec.strides[level]
        expected = roi_align(features[level], roi, 3, stride, sampling_ratio, aligned)
        np.testing.assert_allclose(pooled[row], expected, atol=float32_error(features))


def test_rows_that_are_not_valid_are_zero_and_cost_nothing_to_others() -> None:
    maps = [torch.ones(2, 4, 8, 8)]
    rois = torch.tensor([[[0.0, 0.0, 16.0, 16.0], [4.0, 4.0, 8.0, 8.0]]] * 2)
    valid = torch.tensor([[True, False], [False, True]])
    pooled, cut = RoIPooler(PoolerSpec(strides=(4,)))(maps, rois, valid)
    assert cut.tolist() == [0, 0]
    assert pooled.flatten(1).any(dim=1).tolist() == [True, False, False, True]


def _random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Clusters, duplicates and empty boxes among free ones."""
    centers = rng.uniform(0, 60, (max(count // 4, 1), 2))
    corner = centers[rng.integers(0, len(centers), count)] + rng.normal(0, 2, (count, 2))
    sides = rng.uniform(0, 30, (count, 2)) * (rng.random((count, 1)) > 0.05)
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    if count > 3:
        boxes[count // 2] = boxes[0]
    return boxes


def test_nms_equals_a_simple_loop(subtests: pytest.Subtests) -> None:
    for seed in range(40):
        with subtests.test(seed=seed):
            rng = np.random.default_rng(seed)
            count, num_groups = int(rng.integers(1, 60)), int(rng.choice([1, 3]))
            boxes = np.stack([_random_boxes(rng, count) for _ in range(2)])
            valid = rng.random((2, count)) > 0.1
            groups = rng.integers(0, num_groups, (2, count))
            limit = float(rng.choice([0.3, 0.5, 0.7]))
            keep, undecided = torch.ops.maskrcnn.nms_keep(
                *map(torch.tensor, (boxes, valid, groups)), num_groups, limit, "proposals"
            )
            expected = [greedy_nms(boxes[b], valid[b], groups[b], limit) for b in range(2)]
            np.testing.assert_array_equal(keep.numpy(), np.stack(expected))
            assert undecided.tolist() == [0, 0]
