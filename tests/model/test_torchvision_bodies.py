"""Bodies that weights alone tell, and the refusals of all others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign

from model.errors import CheckpointError
from model.families.dialect import Reading, Source
from model.families.torchvision.dialect import DIALECT

PATH = Path("w.pth")


def read(build: Callable[[], nn.Module]) -> Reading:
    with torch.device("meta"):
        state = DIALECT.prepare(build().state_dict(), PATH)
    return DIALECT.read(state, Source(PATH, "0" * 64))


def _on_pyramid(body: nn.Module, maps: dict[str, str], widths: list[int]) -> nn.Module:
    return FasterRCNN(BackboneWithFPN(body, maps, widths, 16), 2)


def _on_one_map(body: Any, channels: int) -> nn.Module:
    body.out_channels = channels
    anchors = AnchorGenerator(((32, 64, 128),), ((0.5, 1.0, 2.0),))
    pooler = MultiScaleRoIAlign(["0"], 7, 2)
    return FasterRCNN(body, 2, rpn_anchor_generator=anchors, box_roi_pool=pooler)


def _convnext() -> nn.Module:
    maps = {"1": "0", "3": "1", "5": "2", "7": "3"}
    return _on_pyramid(models.convnext_tiny().features, maps, [96, 192, 384, 768])


def _without_head() -> nn.Module:
    return _on_one_map(nn.Sequential(*list(resnet.resnet18().children())[:-2]), 512)


def _plain() -> nn.Module:
    return _on_one_map(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)), 16)


def test_other_bodies_are_refused_as_what_they_are(subtests: pytest.Subtests) -> None:
    for build, message in [
        (_convnext, "the body is a ConvNeXt; weights alone"),
        (_without_head, "the body is a ResNet, without a feature pyramid"),
        (lambda: _on_one_map(models.mobilenet_v2().features, 1280), "is a MobileNetV2, without"),
        (lambda: _on_one_map(models.swin_t().features, 768), "is a Swin Transformer, without"),
        (
            lambda: _on_pyramid(models.mobilenet_v3_small().features, {"12": "0"}, [576]),
            "is a MobileNetV3 of other sizes",
        ),
        (_plain, "the body is unknown, without a feature pyramid"),
    ]:
        with subtests.test(message), pytest.raises(CheckpointError, match=message):
            read(build)


def _resnet(channels: int = 3, **options: Any) -> nn.Module:
    body = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], **options)
    body.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    maps = {f"layer{i + 1}": str(i) for i in range(4)}
    return _on_pyramid(body, maps, [64, 128, 256, 512])


def test_group_norm_and_other_channels() -> None:
    """Names tell GroupNorm, not its groups; the stem tells the channels, not their mean."""
    reading = read(partial(_resnet, norm_layer=lambda channels: nn.GroupNorm(32, channels)))
    assert reading.spec.body.norm == "group_norm"
    assert "body.norm" in reading.assumed
    assert "body.norm" not in read(_resnet).assumed
    four = read(partial(_resnet, 4))
    assert four.spec.preprocess.channels == 4
    assert set(four.required) == {"preprocess.mean", "preprocess.std"}
    assert not read(_resnet).required
