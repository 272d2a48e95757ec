"""The real photos and weights that benchmarks and tests use, and the torchvision model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from model.checkpoint import Checkpoint, SpecOptions, load

ROOT = Path(__file__).resolve().parents[1]


def _folder() -> Path:
    return Path(os.environ.get("MASKPORT_DATA") or ROOT.parent / "shared" / "data")


def has_data() -> bool:
    """Whether the real photos and weights are available."""
    return _folder().is_dir()


def data_folder() -> Path:
    """`MASKPORT_DATA`, else `shared/data` beside the checkout."""
    folder = _folder()
    if not folder.is_dir():
        sys.exit(
            "error: no photos and weights; set MASKPORT_DATA to a folder with coco/val2017, "
            "coco/train2017, coco/annotations and weights/r50_fpn_coco24.pth"
        )
    return folder


def fitted_weights() -> Path:
    """The R50-FPN checkpoint that was fitted to 24 photos."""
    return data_folder() / "weights" / "r50_fpn_coco24.pth"


def fitted_ids() -> list[int]:
    """COCO ids of those photos."""
    ids: list[int] = json.loads(fitted_weights().with_suffix(".ids.json").read_text("utf-8"))
    return ids


def fitted_photos() -> list[Path]:
    """Their files."""
    folder = data_folder() / "coco" / "train2017"
    return [folder / f"{i:012d}.jpg" for i in fitted_ids()]


def val_photos() -> list[Path]:
    """The photos of val2017, sorted."""
    return sorted((data_folder() / "coco" / "val2017").glob("*.jpg"))


def load_fitted(short_side: int, long_side: int) -> Checkpoint:
    """The checkpoint at a resize rule."""
    return load(fitted_weights(), SpecOptions(short_side=short_side, long_side=long_side))


def torchvision_model(checkpoint: Checkpoint) -> GeneralizedRCNN:
    """`maskrcnn_resnet50_fpn` as torchvision builds it, with the checkpoint's weights."""
    pre = checkpoint.spec.preprocess
    model: GeneralizedRCNN = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=pre.short_side, max_size=pre.long_side
    )
    model.load_state_dict(dict(checkpoint.original))
    model.eval().requires_grad_(False)
    return model
