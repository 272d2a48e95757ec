"""Small models for every branch of the device code, and photos for them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from model.checkpoint import Checkpoint, SpecOptions, load
from model.mask_rcnn import MaskRCNN
from model.spec import ModelSpec
from runtime.sources.photos import decode
from tests import detectron2_models

ROOT = Path(__file__).resolve().parents[3]
KINDS = ("demo", "detectron2", "keypoints", "matterport", "boxes")
_SIZES = {"short_side": 96, "long_side": 160}


@cache
def checkpoint(kind: str) -> Checkpoint:
    """The demo's weights at 160/267 with fewer rows; the other weights are random."""
    if kind == "demo":
        names = tuple((ROOT / "examples/demo/shapes.names").read_text("utf-8").split())
        options = SpecOptions(short_side=160, long_side=267, names=names)
        loaded = load(ROOT / "examples/demo/shapes.pth", options)
        return replace(loaded, spec=_smaller(loaded.spec))
    spec = _spec(kind)
    torch.manual_seed(0)
    network = MaskRCNN(spec)
    return Checkpoint(Path(f"{kind}.pth"), "0" * 64, spec, network.state_dict(), {}, ())


def _smaller(spec: ModelSpec) -> ModelSpec:
    """With fewer proposals and rows, for speed."""
    return replace(
        spec,
        rpn=replace(spec.rpn, pre_nms=100, post_nms=100),
        box=replace(spec.box, detections=25, candidates=200),
    )


def _spec(kind: str) -> ModelSpec:
    base = detectron2_models.KEYPOINTS if kind == "keypoints" else detectron2_models.FPN
    spec = replace(
        base,
        preprocess=replace(base.preprocess, **_SIZES),
        rpn=replace(base.rpn, pre_nms=100, post_nms=50),
        box=replace(base.box, detections=8, candidates=100, score_threshold=0.0),
    )
    if kind == "boxes":
        return replace(spec, mask=None)
    if kind == "matterport":
        return _matterport(spec)
    return spec


def _matterport(spec: ModelSpec) -> ModelSpec:
    """Matterport's pre- and postprocessing around the same network."""
    assert spec.mask is not None
    preprocess = replace(
        spec.preprocess, resize_rule="matterport", interpolation="skimage-bilinear", square=True,
        long_side=160, channel_order="rgb", placement="centred", padding="zero-before",
    )  # fmt: skip
    return replace(
        spec,
        preprocess=preprocess,
        box=replace(spec.box, to_image="round"),
        mask=replace(spec.mask, paste="resize", threshold=0.4),
    )


def threshold(kind: str) -> float:
    """A threshold that some scores are below."""
    return 0.5 if kind == "demo" else 0.0


@cache
def _photo() -> np.ndarray:
    return decode(ROOT / "export/data/shapes.jpg")


def photos(count: int) -> np.ndarray:
    """The sample photo and mirrored ones, uint8 [N, 480, 640, 3] RGB."""
    variants = [_photo(), _photo()[:, ::-1], _photo()[::-1]]
    return np.stack([variants[index % 3] for index in range(count)])
