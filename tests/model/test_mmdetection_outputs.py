"""The network with MMDetection's spec against its rules, written anew in NumPy.

The oracle is fed with the network's own raw scores and deltas: what is compared is everything
that happens to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.checkpoint import load
from model.families.mmdetection.dialect import DIALECT
from model.mask_rcnn import MaskRCNN, Outputs
from model.native.level_rule import level_areas
from model.ops import pyramid_levels
from model.spec import ModelSpec, PoolerSpec
from model.spec_options import SpecOptions
from tests.lively import enliven_network
from tests.mmdetection_files import Network, pictures, state_of
from tests.oracles import mmdetection as oracle
from tests.oracles.pooling import float32_error
from tests.oracles.roi_align import roi_align

STRIDES = (4, 8, 16, 32, 64)
CANVAS, IMAGE = (256, 320), (245, 301)
LIMITS = SpecOptions(overrides={"rpn": {"pre_nms": 60, "post_nms": 90}}, detections=40)


@dataclass(frozen=True)
class Run:
    """One image through a network, and what its modules answered on the way."""

    spec: ModelSpec
    model: MaskRCNN
    outputs: Outputs
    recorded: dict[str, list[tuple[tuple[Tensor, ...], object]]]

    def first(self, module: str) -> object:
        return self.recorded[module][0][1]


@pytest.fixture(scope="module", params=["per-class", "class-agnostic"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    net = Network(
        (1, 1, 1, 1), base=8, fpn=8, fc=32, classes=4, agnostic=request.param == "class-agnostic"
    )
    path = tmp_path_factory.mktemp("mmdetection") / "weights.pth"
    torch.save({"state_dict": state_of(net)}, path)
    made = load(path, LIMITS)
    lively = enliven_network(made.build(), pictures(4, *CANVAS)).state_dict()
    state = {DIALECT.original(name, made.spec): t for name, t in lively.items()}
    torch.save({"meta": {}, "state_dict": state}, path)
    actual = load(path, LIMITS)
    model, recorded = actual.build(), {}
    for name in ("rpn.head", "rpn", "box_pool", "box_head", "mask_pool"):
        recorded[name] = []
        keep: Callable[..., None] = lambda _m, given, out, name=name: recorded[name].append(  # noqa: E731
            (given, out)
        )
        model.get_submodule(name).register_forward_hook(keep)
    image = pictures(1, *CANVAS)
    with torch.no_grad():
        outputs = model(image, torch.tensor([IMAGE], dtype=torch.float32))
    return Run(actual.spec, model, outputs, recorded)


def _rows(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The valid proposals and their rows."""
    boxes, valid, _ = run.first("rpn")  # type: ignore[misc]
    return boxes[0][valid[0]].numpy(), valid[0].numpy()


def test_proposals(run: Run) -> None:
    logits, deltas = run.first("rpn.head")  # type: ignore[misc]
    expected, _ = oracle.proposals(
        [t[0].numpy() for t in logits], [t[0].numpy() for t in deltas], STRIDES, IMAGE, 60, 90
    )
    actual, _ = _rows(run)
    assert len(actual) > 60
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=2e-3)
    assert (expected[:, 2] <= IMAGE[1]).all()


def test_detections(run: Run) -> None:
    logits, deltas = run.first("box_head")  # type: ignore[misc]
    rois, valid = _rows(run)
    boxes, scores, labels = oracle.detections(
        logits.numpy()[valid], deltas.numpy()[valid], rois, IMAGE, max_per_img=40
    )
    count = int(run.outputs.counts[0])
    assert count == len(boxes) >= 20
    assert len(set(labels.tolist())) >= 3
    np.testing.assert_allclose(run.outputs.scores[0, :count].numpy(), scores, atol=1e-5)
    np.testing.assert_array_equal(run.outputs.labels[0, :count].numpy(), labels)
    np.testing.assert_allclose(run.outputs.boxes[0, :count].numpy(), boxes, atol=5e-3)
    assert int(run.outputs.candidates_cut[0]) == 0


@pytest.mark.parametrize(("module", "side"), [("box_pool", 7), ("mask_pool", 14)])
def test_pooling(run: Run, module: str, side: int) -> None:
    (features, rois, valid), (pooled, _) = run.recorded[module][0]  # type: ignore[misc]
    areas = ((rois[0, :, 2] - rois[0, :, 0]) * (rois[0, :, 3] - rois[0, :, 1])).numpy()
    order = [i for i in np.argsort(areas) if valid[0, i]]
    chosen = [order[0], order[len(order) // 2], order[-1]]
    levels = set()
    for row in chosen:
        roi = rois[0, row].numpy()
        level = oracle.level(roi, 4)
        levels.add(level)
        expected = roi_align(features[level][0].numpy(), roi, side, STRIDES[level], 0, True)
        np.testing.assert_allclose(pooled[row].numpy(), expected, atol=float32_error(features))
    assert len(levels) >= 2


def test_masks_are_the_predicted_class_alone(run: Run) -> None:
    pooled, _ = run.recorded["mask_pool"][0][1]  # type: ignore[misc]
    head = run.model.mask_head
    predictor = head.predictor
    with torch.no_grad():
        logits = predictor(head.convs(pooled))
    count = int(run.outputs.counts[0])
    for row in range(count):
        channel = 0 if logits.shape[1] == 1 else int(run.outputs.labels[0, row])
        expected = 1 / (1 + np.exp(-logits[row, channel].numpy().astype(np.float64)))
        np.testing.assert_allclose(run.outputs.masks[0, row].numpy(), expected, atol=1e-5)


def _near_boundaries() -> np.ndarray:
    """Float32 areas that are within a few of one another from where a level begins."""
    sides = np.float32([56.0 * 2**k * (1 - 1e-6 / 2**k) for k in range(-1, 5)])
    bits = (sides * sides).view(np.int32)[:, None] + np.arange(-40, 41, dtype=np.int32)
    return bits.reshape(-1).view(np.float32)


@pytest.fixture
def pooler() -> PoolerSpec:
    state = state_of(Network(), "meta")
    from model.families.dialect import Source

    return DIALECT.read(state, Source(Path("w.pth"), "")).spec.box.pooler


def test_the_level_rule_agrees_at_its_boundaries(pooler: PoolerSpec) -> None:
    areas = _near_boundaries()
    scale = torch.sqrt(torch.tensor(areas))
    published = torch.floor(torch.log2(scale / 56 + 1e-6)).clamp(min=0, max=3).long()
    rois = torch.zeros(len(areas), 4)
    rois[:, 2], rois[:, 3] = torch.tensor(areas), 1.0
    rule = (pooler.canonical_size, pooler.canonical_level, pooler.inner_eps, pooler.outer_eps)
    actual = pyramid_levels(rois, 4, 2, *rule)
    assert torch.equal(actual, published)
    starts = torch.tensor(level_areas(pooler))
    assert torch.equal((torch.tensor(areas)[:, None] >= starts).sum(dim=1), published)
    assert set(published.tolist()) == {0, 1, 2, 3}
    # Counted from level 0 of the image, as others count, float32 rounds some areas up.
    shifted = torch.floor(2 + torch.log2(scale / 56 + 1e-6)).clamp(2, 5).long() - 2
    assert not torch.equal(shifted, published)


def test_the_level_rule_is_the_oracles(pooler: PoolerSpec) -> None:
    rng = np.random.default_rng(2)
    corner, size = rng.uniform(0, 400, (200, 2)), np.exp(rng.uniform(0, 7, (200, 2)))
    rois = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    rule = (pooler.canonical_size, pooler.canonical_level, pooler.inner_eps, pooler.outer_eps)
    actual = pyramid_levels(torch.tensor(rois), 4, 2, *rule)
    assert actual.tolist() == [oracle.level(roi, 4) for roi in rois]
    assert len(set(actual.tolist())) == 4


@pytest.mark.parametrize("level", range(5))
def test_anchors(level: int) -> None:
    from model.families.dialect import Source
    from model.heads.rpn import cell_anchors, grid_anchors

    spec = DIALECT.read(state_of(Network(), "meta"), Source(Path("w.pth"), "")).spec.anchors
    stride = STRIDES[level]
    actual = grid_anchors(cell_anchors(spec, level), (3, 5), (stride, stride), spec.offset)
    np.testing.assert_allclose(actual.numpy(), oracle.anchors((3, 5), stride), rtol=1e-6, atol=1e-5)


def test_a_move_that_shrinks_is_bounded_too() -> None:
    """detectron2 and torchvision bound growth only."""
    from model.heads.box_coding import decode

    box, delta = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]]), torch.tensor([[0.0, 0.0, -9.0, 9.0]])
    expected = oracle.decode(box[0].numpy(), delta[0].numpy(), (1, 1, 1, 1), (10**6, 10**6))
    actual = decode(delta, box, (1.0, 1.0, 1.0, 1.0), "both")[0].clamp(min=0)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)
    assert actual[2] - actual[0] == pytest.approx(16.0)
