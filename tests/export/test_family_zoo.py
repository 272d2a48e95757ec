"""Every other supported model: our eager network against `standard` and `native`, and an engine.

Recorded outputs and oracles compare our network with the frameworks (docs/models.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from export.convert import convert
from export.engine import build_engine
from export.onnx import export_onnx
from export.parity.eager_variants import in_double, model_noise, other_convolutions
from export.parity.network_reference import NetworkEager
from export.tracing import GraphShape
from model.checkpoint import Checkpoint, load
from model.mask_rcnn import MaskRCNN
from model.native.options import NativeOptions
from model.spec import ModelSpec, PoolerSpec, PreprocessSpec, RoIStageSpec
from runtime.compare.matching import compare
from runtime.compare.noise_check import check_with_noise
from runtime.predictor import Predictor
from tests.detectron2_models import C4, CASES, DC5, KEYPOINTS
from tests.keras_matterport import Widths, random_weights, write_h5
from tests.lively import enliven_network, picture
from tests.mmdetection_files import Network, state_of
from tests.reliability import tiny

PHOTOS_HW = ((100, 140), (150, 90))
CANVAS_HW = (128, 160)
# Random weights suppress in longer chains than trained ones.
MANY_ROUNDS = NativeOptions(proposal_rounds=64, detection_rounds=64)


def _small(spec: ModelSpec) -> ModelSpec:
    """The same rules at a smaller size."""
    sides = PreprocessSpec(96, 160) if not spec.preprocess.square else PreprocessSpec(128, 128)
    box = replace(spec.box, detections=30, candidates=400, score_threshold=0.02)
    return replace(
        spec,
        preprocess=replace(spec.preprocess, short_side=sides.short_side, long_side=sides.long_side),
        rpn=replace(spec.rpn, pre_nms=400, post_nms=150),
        box=box,
    )


def _papers_c4() -> ModelSpec:
    """Mask R-CNN, fig. 4 left: res5 at stride 1 on 7x7 RoIs, 300 proposals."""
    pooler = PoolerSpec(7, 2, True, (16,), inner_eps=1e-8, outer_eps=0.0)
    return replace(
        C4,
        rpn=replace(C4.rpn, post_nms=300),
        roi_stage=RoIStageSpec(3, 16, 24, stride=1),
        box=replace(C4.box, pooler=pooler),
        mask=replace(C4.mask, pooler=pooler) if C4.mask is not None else None,
    )


def _roi_pooled() -> ModelSpec:
    """Faster R-CNN as published: RoIPool on one level."""
    pooler = PoolerSpec(7, 1, False, (16,), kind="roi_pool")
    return replace(DC5, box=replace(DC5.box, pooler=pooler), mask=None)


def _mmdetection(folder: Path) -> ModelSpec:
    torch.save({"state_dict": state_of(Network())}, folder / "mmdetection.pth")
    return load(folder / "mmdetection.pth").spec


def _matterport(folder: Path) -> ModelSpec:
    write_h5(folder / "matterport.h5", random_weights(Widths()))
    return load(folder / "matterport.h5").spec


def _slow(kind: str) -> object:
    return pytest.param(kind, marks=pytest.mark.slow)


FAMILY = {
    "boxes": replace(tiny.SPEC, mask=None),
    "c4": C4,
    "c4-of-the-paper": _papers_c4(),
    "dc5": DC5,
    "roi-pool": _roi_pooled(),
    "detectron2-keypoints": KEYPOINTS,
    "group-norm": CASES["group-norm"][0],
    "class-agnostic-sigmoid": CASES["agnostic"][0],
    "mmdetection": _mmdetection,
    "matterport": _matterport,
}
# Of the `standard` graphs a dialect, of both a network without masks; the other rows are slow.
STANDARD = [k if k in ("boxes", "mmdetection") else _slow(k) for k in FAMILY]
NATIVE = [k if k == "boxes" else _slow(k) for k in FAMILY]


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    return cache(lambda kind: _checkpoint(kind, tmp_path_factory.mktemp("zoo")))


def _checkpoint(kind: str, folder: Path) -> Checkpoint:
    """Random weights that detect, converted with the spec as by `maskport convert`."""
    source = FAMILY[kind]
    spec = _small(source if isinstance(source, ModelSpec) else source(folder))
    images = [torch.tensor(picture(96, 128, seed=i)) for i in range(4)]
    batch = torch.stack(images).permute(0, 3, 1, 2).float() * (spec.preprocess.value_range / 255)
    network = enliven_network(MaskRCNN(spec).eval(), batch, seed=sum(map(ord, kind)))
    state = network.state_dict()
    path = folder / "kept.safetensors"
    convert(Checkpoint(folder / "none", "", spec, state, {}, ()), path)
    return load(path)


def _require_equal(
    kind: str, checkpoint: Checkpoint, path: Path, canvas_hw: tuple[int, int] | None
) -> None:
    eager = NetworkEager(checkpoint, canvas_hw)
    photos = {f"{h}x{w}": picture(h, w, seed=h) for h, w in PHOTOS_HW}
    runs = {name: eager.run(photo) for name, photo in photos.items()}
    with Predictor.open(path, on_uncertified="raise") as predictor:
        rows = [
            compare(runs[name].detections, predictor.predict(photo), name)
            for name, photo in photos.items()
        ]
    threshold = checkpoint.spec.box.score_threshold
    variants = (other_convolutions, in_double)
    verdict, _ = check_with_noise(
        rows,
        lambda name: runs[name].trace,
        lambda: model_noise(eager, photos, runs, threshold, variants),
    )
    assert verdict.detections >= 20
    # Quantized RoIs of neighbors coincide: equal scores have no order.
    has_ties = kind == "roi-pool" and verdict.unexplained_rows == 0
    assert verdict.passed or has_ties, "\n".join(map(str, [verdict, *verdict.excesses]))
    assert verdict.equal_detections >= 0.9 * verdict.detections
    spread = np.concatenate([run.detections.scores for run in runs.values()])
    assert spread.max() - spread.min() > 0.05


@pytest.mark.parametrize("kind", STANDARD)
def test_the_standard_graph_equals_the_eager_network(
    kind: str, checkpoint_of: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint, path = checkpoint_of(kind), tmp_path / "model.onnx"
    export_onnx(checkpoint.path, path, check_photo=None)
    _require_equal(kind, checkpoint, path, None)


@pytest.mark.parametrize("kind", NATIVE)
def test_the_native_graph_equals_the_eager_network_and_compiles(
    kind: str, checkpoint_of: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint, path = checkpoint_of(kind), tmp_path / "model.rtx.onnx"
    canvas = (128, 128) if checkpoint.spec.preprocess.square else CANVAS_HW
    export_onnx(
        checkpoint.path,
        path,
        shape=GraphShape(1, *canvas),
        check_photo=None,
        target="tensorrt-rtx",
        native_options=MANY_ROUNDS,
    )
    _require_equal(kind, checkpoint, path, canvas)
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    (report,) = build_engine(path, gpu=["sm86"])
    assert set(report.info.layer_types) == {"float32"}
