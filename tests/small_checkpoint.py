"""A complete torchvision checkpoint with 2 classes, small enough for any test."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.families.torchvision.dialect import DIALECT
from model.mask_rcnn import MaskRCNN
from model.spec import BoxHeadSpec, ClassSpec, FpnSpec, MaskHeadSpec, ModelSpec, ResNetSpec

SPEC = ModelSpec(
    dialect="torchvision",
    architecture="maskrcnn_resnet_10_narrow_fpn",
    body=ResNetSpec((1, 1, 1, 1), "basic", 8, (8, 12, 16, 24), (8, 12, 16, 24)),
    classes=ClassSpec(("__background__", "class_1", "class_2")),
    fpn=FpnSpec(8),
    box=BoxHeadSpec(fc_widths=(16, 16)),
    mask=MaskHeadSpec(conv_widths=(8,), deconv_width=8),
)
LANDMARK = "roi_heads.box_predictor.cls_score.weight"


@cache
def _values() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {DIALECT.original(n, SPEC): t.clone() for n, t in MaskRCNN(SPEC).state_dict().items()}


def sound_state() -> dict[str, Tensor]:
    """The state dict, with torchvision's names and shapes."""
    return dict(_values())


def saved(folder: Path, state: Mapping[str, object] | None = None) -> Path:
    """Write `weights.pth`, by default with `sound_state`."""
    path = folder / "weights.pth"
    torch.save(dict(sound_state() if state is None else state), path)
    return path


def zoo(protocol: int = 3, **beside: object) -> bytes:
    """The state dict in NumPy arrays, as detectron2's zoo stores it, with `beside`."""
    model = {name: tensor.numpy() for name, tensor in sound_state().items()}
    content = {"model": model, "__author__": "a test", "matching_heuristics": True}
    return pickle.dumps(content | beside, protocol)
