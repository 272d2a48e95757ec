"""The static operators against the opaque ones, and the session that runs them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.errors import ArtifactError, DeviceError, UsageError
from model.native.operators import StaticOperators
from model.native.options import NativeOptions
from model.ops import OPAQUE
from model.spec import PoolerSpec
from runtime.predictor import Predictor
from runtime.preprocessing.canvas import to_canvas
from runtime.sessions.torch import TorchSession
from tests.model.test_ops import _random_boxes
from tests.oracles.pooling import float32_error


def test_pooling(subtests: pytest.Subtests) -> None:
    for case, spec, sides in [
        ("torchvision-box", PoolerSpec(), (4, 8, 16, 32)),
        ("torchvision-mask", PoolerSpec(14, 2), (4, 8, 16, 32)),
        ("aligned", PoolerSpec(7, 3, True, inner_eps=1e-8, outer_eps=0.0), (4, 8, 16, 32)),
        ("equal-strides", PoolerSpec(3, 1, strides=(32, 32)), (32, 32)),
        ("one-level", PoolerSpec(14, 2, strides=(16,)), (16,)),
    ]:
        with subtests.test(case):
            rng = np.random.default_rng(3)
            maps = [
                torch.tensor(rng.normal(size=(2, 3, 224 // s, 352 // s))).float() for s in sides
            ]
            corner = rng.uniform(-40, 300, (2, 40, 2))
            rois = np.concatenate([corner, corner + np.exp(rng.uniform(-1, 6, (2, 40, 2)))], axis=2)
            given = torch.tensor(rois).float(), torch.tensor(rng.random((2, 40)) > 0.2)
            expected, _ = OPAQUE.pyramid_pool(maps, *given, spec)
            for chunk_bytes in (2**28, 1):
                actual, _ = StaticOperators(NativeOptions(chunk_bytes=chunk_bytes)).pyramid_pool(
                    maps, *given, spec
                )
                torch.testing.assert_close(actual, expected, atol=float32_error(maps), rtol=0)


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.7])
def test_nms_on_overlaps_of_just_the_limit(limit: float) -> None:
    """0.3 and 0.7 as float32 are above and below themselves; sides of tenths meet them."""
    starts = torch.arange(0, 14) / 2.0
    rows = [[x, 0.0, x + side, 1.0] for x in starts.tolist() for side in (6.5, 10.0, 13.0)]
    boxes = torch.tensor(rows)[None]
    ones = torch.ones(boxes.shape[:2], dtype=torch.bool)
    given = boxes, ones, ones.long(), 1, limit, "proposals"
    expected, _ = OPAQUE.nms_keep(*given)
    keep, undecided = StaticOperators().nms_keep(*given)
    assert undecided.item() == 0
    torch.testing.assert_close(keep, expected)


@pytest.mark.parametrize("num_groups", [1, 4])
@pytest.mark.parametrize("block", [64, 200, 512])
def test_nms(num_groups: int, block: int) -> None:
    rng = np.random.default_rng(5)
    boxes = torch.tensor(np.stack([_random_boxes(rng, 300) for _ in range(4)]))
    valid = torch.tensor(rng.random((4, 300)) > 0.1)
    groups = torch.tensor(rng.integers(0, num_groups, (4, 300)))
    expected, _ = OPAQUE.nms_keep(boxes, valid, groups, num_groups, 0.5, "proposals")
    enough = StaticOperators(NativeOptions(proposal_rounds=60, nms_block=block))
    keep, undecided = enough.nms_keep(boxes, valid, groups, num_groups, 0.5, "proposals")
    assert undecided.tolist() == [0] * 4
    assert undecided.dtype == torch.int32
    torch.testing.assert_close(keep, expected)
    few = StaticOperators(NativeOptions(proposal_rounds=1))
    keep, undecided = few.nms_keep(boxes, valid, groups, num_groups, 0.5, "proposals")
    wrong = (keep != expected).any(dim=1)
    assert wrong.any()
    assert (undecided[wrong] > 0).all()


def test_a_static_session_finds_what_the_eager_one_finds(
    demo_checkpoint: Checkpoint, demo_pixels: np.ndarray
) -> None:
    eager = Predictor(TorchSession(demo_checkpoint)).predict(demo_pixels)
    static = Predictor(TorchSession(demo_checkpoint, mode="static")).predict(demo_pixels)
    assert len(eager) > 10
    assert static.exact
    assert static.names == eager.names
    np.testing.assert_allclose(static.boxes, eager.boxes, atol=0.01)
    np.testing.assert_allclose(static.scores, eager.scores, atol=1e-4)
    assert static.rle() == eager.rle()


def test_half_precision_changes_little_and_keeps_boxes_in_float32(
    demo_checkpoint: Checkpoint, demo_pixels: np.ndarray
) -> None:
    canvas = to_canvas([demo_pixels], demo_checkpoint.spec.preprocess, (320, 448), 1)
    feed = {"images": canvas.images, "image_hw": canvas.image_hw}
    full = TorchSession(demo_checkpoint, mode="static").run(feed)
    half = TorchSession(demo_checkpoint, mode="static", half=True).run(feed)
    count = int(full["counts"][0])
    assert half["boxes"].dtype == half["scores"].dtype == np.float32
    assert abs(int(half["counts"][0]) - count) <= 3
    best = min(count, 8)
    np.testing.assert_allclose(half["scores"][0, :best], full["scores"][0, :best], atol=0.05)
    assert not np.array_equal(half["scores"], full["scores"])


@pytest.mark.slow
def test_a_compiled_session(demo_checkpoint: Checkpoint, demo_pixels: np.ndarray) -> None:
    canvas = to_canvas([demo_pixels], demo_checkpoint.spec.preprocess, (320, 448), 1)
    feed = {"images": canvas.images, "image_hw": canvas.image_hw}
    static = TorchSession(demo_checkpoint, mode="static").run(feed)
    compiled = TorchSession(demo_checkpoint, mode="compiled").run(feed)
    count = int(static["counts"][0])
    assert int(compiled["counts"][0]) == count
    np.testing.assert_allclose(compiled["boxes"][0, :count], static["boxes"][0, :count], atol=0.05)


def test_sessions_that_cannot_be(demo_checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="mode: expected one of eager"):
        TorchSession(demo_checkpoint, mode="fast")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected a CUDA device"):
        TorchSession(demo_checkpoint, mode="cuda-graph")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="PyTorch finds no CUDA GPU"):
            TorchSession(demo_checkpoint, device="cuda")
    closed = TorchSession(demo_checkpoint)
    closed.close()
    with pytest.raises(ArtifactError, match="closed"):
        closed.run({"images": np.zeros((1, 3, 64, 64), "f4"), "image_hw": np.ones((1, 2), "f4")})
