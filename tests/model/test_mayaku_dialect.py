"""mayaku's checkpoints: names, configuration, and what it computes unlike detectron2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.checkpoint import load
from model.errors import CheckpointError
from model.families.mayaku.names import detectron2_name
from model.mask_rcnn import MaskRCNN
from runtime.preprocessing.canvas import resized_hw
from tests.small_checkpoint import SPEC

# The network's names and mayaku's, as its version 2.0.1 saves them.
PARTS = (
    ("body.conv1.", "backbone.bottom_up.stem.0."),
    ("body.bn1.", "backbone.bottom_up.stem.1."),
    *((f"body.layer{i}.", f"backbone.bottom_up.res{i + 1}.") for i in range(1, 5)),
    *((f"fpn.inner_blocks.{i}.0.", f"backbone.lateral_convs.{i}.") for i in range(4)),
    *((f"fpn.layer_blocks.{i}.0.", f"backbone.output_convs.{i}.") for i in range(4)),
    ("rpn.head.conv.0.0.", "rpn.head.conv."),
    ("rpn.head.cls_logits.", "rpn.head.objectness_logits."),
    ("rpn.head.bbox_pred.", "rpn.head.anchor_deltas."),
    ("box_head.trunk.fc6.", "roi_heads.box_head.fcs.0."),
    ("box_head.trunk.fc7.", "roi_heads.box_head.fcs.1."),
    ("box_head.", "roi_heads.box_predictor."),
    ("mask_head.convs.0.0.", "roi_heads.mask_head.convs.0."),
    ("mask_head.predictor.conv5_mask.", "roi_heads.mask_head.deconv."),
    ("mask_head.predictor.mask_fcn_logits.", "roi_heads.mask_head.predictor."),
)
CONFIG: dict[str, Any] = {
    "model": {
        "mask_on": True,
        "roi_heads": {"score_thresh_test": 0.3, "nms_thresh_test": 0.4, "num_classes": 2},
        "rpn": {"pre_nms_topk_test": 500, "bbox_reg_weights": (2, 2, 1, 1)},
        "roi_mask_head": {"pooler_resolution": 10},
    },
    "input": {"min_size_test": 240, "max_size_test": 400, "resize_mode": "shortest_edge"},
    "test": {"detections_per_image": 60},
}


def state() -> dict[str, Tensor]:
    """Of the small network, with the background last."""
    torch.manual_seed(0)
    tensors = {}
    for name, tensor in MaskRCNN(SPEC).state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        prefix, new = next(part for part in PARTS if name.startswith(part[0]))
        tensors[new + name.removeprefix(prefix)] = tensor
    tensors["roi_heads.box_predictor.bbox_pred.weight"] = torch.ones(8, 16)
    tensors["roi_heads.box_predictor.bbox_pred.bias"] = torch.ones(8)
    for leaf in ("weight", "bias"):
        name = f"roi_heads.mask_head.predictor.{leaf}"
        tensors[name] = tensors[name][:2]
    return tensors


def saved(folder: Path, **sidecar: object) -> Path:
    path = folder / "model_final.pth"
    content = {"schema_version": 1, "class_names": ["cat", "dog"], **sidecar}
    torch.save({"model": state(), "mayaku": content}, path)
    return path


def test_the_configuration_and_the_names_in_the_file_are_used(tmp_path: Path) -> None:
    checkpoint = load(saved(tmp_path, config=CONFIG))
    spec = checkpoint.spec
    assert (spec.dialect, spec.classes.names, spec.box.background) == (
        "mayaku", ("cat", "dog"), "last",
    )  # fmt: skip
    assert (spec.box.score_threshold, spec.box.nms_iou, spec.box.detections) == (0.3, 0.4, 60)
    assert (spec.rpn.pre_nms, spec.rpn.box_weights) == (500, (2.0, 2.0, 1.0, 1.0))
    assert (spec.mask.pooler.output_size, spec.mask.pooler.sampling_ratio) == (10, 2)
    assert (spec.preprocess.channel_order, spec.preprocess.mean[0]) == ("rgb", 123.675)
    assert not checkpoint.assumptions
    assert all(torch.equal(checkpoint.original[detectron2_name(n)], t) for n, t in state().items())
    assert checkpoint.build()


def test_without_a_configuration_its_defaults_are_assumed(tmp_path: Path) -> None:
    checkpoint = load(saved(tmp_path))
    assert checkpoint.spec.box.detections == 300
    assert {"box.detections", "anchors.sizes"} <= {a.field for a in checkpoint.assumptions}


def test_halves_are_rounded_to_even_numbers(tmp_path: Path) -> None:
    preprocess = load(saved(tmp_path, config=CONFIG)).spec.preprocess
    assert resized_hw((480, 481), preprocess) == (240, 240)
    assert resized_hw((480, 483), preprocess) == (240, 242)


def _convnext(tensors: dict[str, Tensor]) -> None:
    del tensors["backbone.bottom_up.stem.0.weight"]


REFUSED: tuple[tuple[Any, Callable[[dict[str, Tensor]], None], str], ...] = (
    ({"input": {"resize_mode": "letterbox"}}, lambda _: None, "'letterbox', which cannot"),
    ({"model": {"mask_on": "yes"}}, lambda _: None, "expected True or False"),
    (CONFIG, _convnext, "whose body is no ResNet"),
)


def test_what_cannot_be_exported(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for config, change, message in REFUSED:
        with subtests.test(message):
            tensors = state()
            change(tensors)
            path = tmp_path / "w.pth"
            torch.save({"model": tensors, "mayaku": {"config": config}}, path)
            with pytest.raises(CheckpointError, match=message):
                load(path)
