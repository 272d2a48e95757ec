"""The `standard` lowering in ONNX Runtime against the operators' eager bodies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from export.lowering.standard import translations
from model.float32 import largest_float32_not_above
from model.spec import PoolerSpec
from tests.exported_operators import Nms, Pool, exported, run
from tests.model.test_ops import _random_boxes
from tests.oracles.pooling import float32_error


def _rois(rng: np.random.Generator, images: int, count: int) -> np.ndarray:
    corner = rng.uniform(-40, 220, (images, count, 2))
    sides = np.exp(rng.uniform(-2, 6, (images, count, 2)))
    rois = np.concatenate([corner, corner + sides], axis=2)
    rois[:, 0] = [0, 0, 112, 112]
    rois[:, 1] = [0, 0, 224, 224]
    rois[:, 2] = [8, 8, 8, 8]
    return rois.astype(np.float32)


@pytest.mark.parametrize(
    ("spec", "sides"),
    [
        pytest.param(PoolerSpec(14, 2), (4, 8, 16, 32), id="torchvision-mask"),
        pytest.param(PoolerSpec(3, 1, strides=(32, 32, 32, 32)), (32,) * 4, id="equal-strides"),
        pytest.param(PoolerSpec(), (4, 8, 16, 32), id="torchvision-box", marks=pytest.mark.slow),
        pytest.param(
            PoolerSpec(7, 0, True, inner_eps=1e-8, outer_eps=0.0),
            (4, 8, 16, 32),
            id="adaptive",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_pooling(spec: PoolerSpec, sides: tuple[int, ...]) -> None:
    rng, module = np.random.default_rng(5), Pool(spec)

    def inputs(images: int) -> tuple[list[Tensor], Tensor, Tensor]:
        maps = [torch.tensor(rng.normal(size=(images, 3, 224 // s, 288 // s))) for s in sides]
        valid = torch.tensor(rng.random((images, 24)) > 0.2)
        return [m.float() for m in maps], torch.tensor(_rois(rng, images, 24)), valid

    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ([{0: batch}] * len(sides), {0: batch}, {0: batch})
    model = exported(module, inputs(2), translations(), shapes)
    for images in (1, 3):
        maps, rois, valid = inputs(images)
        feed = {f"features_{i}": m.numpy() for i, m in enumerate(maps)}
        feed |= {"rois": rois.numpy(), "valid": valid.numpy()}
        (pooled, _), (nothing, _) = run(model, feed, feed | {"valid": np.zeros_like(valid)})
        expected = module(maps, rois, valid)[0].numpy()
        np.testing.assert_allclose(pooled, expected, atol=float32_error(maps))
        assert not nothing.any()


@pytest.mark.parametrize(
    ("num_groups", "limit"),
    [
        (1, 0.5),
        (4, 0.3),
        *(
            pytest.param(num_groups, limit, marks=pytest.mark.slow)
            for num_groups, limit in ((1, 0.3), (1, 0.7), (4, 0.5), (4, 0.7))
        ),
    ],
)
def test_nms(num_groups: int, limit: float) -> None:
    rng = np.random.default_rng(11)
    module, count = Nms(num_groups, limit), 200

    def inputs(problems: int) -> dict[str, np.ndarray]:
        return {
            "boxes": np.stack([_random_boxes(rng, count) for _ in range(problems)]),
            "valid": rng.random((problems, count)) > 0.1,
            "groups": rng.integers(0, num_groups, (problems, count)),
        }

    batch = torch.export.Dim("batch", min=1, max=64)
    example = tuple(map(torch.tensor, inputs(2).values()))
    model = exported(module, example, translations(), ({0: batch},) * 3)
    feeds = [inputs(problems) for problems in (1, 2, 5)]
    for feed, (keep, undecided) in zip(feeds, run(model, *feeds), strict=True):
        expected, _ = module(*map(torch.tensor, feed.values()))
        np.testing.assert_array_equal(keep, expected.numpy())
        assert undecided.dtype == np.int32
        assert undecided.tolist() == [0] * len(keep)
    nothing = feed | {"valid": np.zeros_like(feed["valid"])}
    assert not run(model, nothing)[0][0].any()


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.5, 0.6, 0.7])
def test_a_float32_limit_compares_as_the_float64_one(limit: float) -> None:
    chosen = np.float32(largest_float32_not_above(limit))
    for step in range(-3, 4):
        iou = np.float32(limit)
        for _ in range(abs(step)):
            iou = np.nextafter(iou, np.float32(np.sign(step)))
        assert (iou > chosen) == (float(iou) > limit)
