"""Whatever weights cannot tell of a model is listed, with the value that is used instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from model.families.assumptions import assumptions, listing
from model.families.dialect import Source
from model.families.torchvision.dialect import DIALECT
from model.live.read import read_live
from model.spec_options import SpecOptions
from model.spec_text import leaves

Change = Callable[[Any], None]


def _model() -> nn.Module:
    torch.manual_seed(0)
    body = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    layers = {f"layer{i + 1}": str(i) for i in range(4)}
    backbone = BackboneWithFPN(body, layers, [64, 128, 256, 512], 16, LastLevelMaxPool())
    return MaskRCNN(
        backbone,
        min_size=160,
        max_size=288,
        box_head=TwoMLPHead(16 * 49, 16),
        box_predictor=FastRCNNPredictor(16, 3),
        mask_head=MaskRCNNHeads(16, (8,), 1),
        mask_predictor=MaskRCNNPredictor(8, 8, 3),
    ).eval()


def put(path: str, value: object) -> Change:
    """Set an attribute like "rpn.nms_thresh", or an item of a dict."""
    *parents, name = path.split(".")

    def change(model: Any) -> None:
        for parent in parents:
            model = getattr(model, parent)
        if isinstance(model, dict):
            model[name] = value
        else:
            setattr(model, name, value)

    return change


def _dilate(model: Any, stage: str, first: bool) -> None:
    for block in list(model.backbone.body[stage].children())[None if first else 1 :]:
        for part in block.modules():
            if isinstance(part, nn.Conv2d):
                part.stride = (1, 1)
                if part.kernel_size == (3, 3):
                    part.dilation = part.padding = (2, 2)
