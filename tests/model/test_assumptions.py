"""Whatever weights cannot tell of a model is listed, with the value that is used instead."""

from __future__ import annotations

import copy
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
from torchvision.ops.poolers import initLevelMapper

from model.families.assumptions import assumptions
from model.families.dialect import Source
from model.families.torchvision.dialect import DIALECT
from model.live.read import read_live
from model.spec import ModelSpec
from model.spec_options import SpecOptions
from model.spec_text import leaves

Change = Callable[[Any], None]
_RATIOS = ((0.5, 1.0, 2.0),) * 5


def _live(head: str) -> Any:
    torch.manual_seed(0)
    body = resnet.ResNet(resnet.BasicBlock, [2, 1, 1, 2])
    layers = {f"layer{i + 1}": str(i) for i in range(4)}
    norm = nn.BatchNorm2d
    backbone = BackboneWithFPN(
        body, layers, [64, 128, 256, 512], 16, LastLevelMaxPool(), norm_layer=norm
    )
    heads: dict[str, Any] = {
        "box_head": TwoMLPHead(16 * 49, 16),
        "box_predictor": FastRCNNPredictor(16, 3),
    }
    if head == "keypoint":
        heads["keypoint_head"] = KeypointRCNNHeads(16, (8,))
        heads["keypoint_predictor"] = KeypointRCNNPredictor(8, 17)
        return KeypointRCNN(backbone, **heads).eval()
    heads["mask_head"] = MaskRCNNHeads(16, (8,), 1, norm_layer=norm)
    heads["mask_predictor"] = MaskRCNNPredictor(8, 8, 3)
    return MaskRCNN(backbone, **heads).eval()


def put(path: str, value: object) -> Change:
    """Set an attribute, like "rpn.nms_thresh", or an item of a dict."""
    *parents, name = path.split(".")

    def change(model: Any) -> None:
        for parent in parents:
            model = getattr(model, parent)
        if isinstance(model, dict):
            model[name] = value
        else:
            setattr(model, name, value)

    return change


def dilate(blocks: slice) -> Change:
    """The last stage keeps the resolution, and some of its blocks are dilated instead."""

    def change(model: Any) -> None:
        stage = list(model.backbone.body["layer4"])
        for conv in (m for m in model.backbone.body["layer4"].modules() if type(m) is nn.Conv2d):
            conv.stride = (1, 1)
        for conv in (m for block in stage[blocks] for m in (block.conv1, block.conv2)):
            conv.dilation = conv.padding = (2, 2)

    return change


def other_eps(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def dilate_mask_head(model: Any) -> None:
    conv = model.roi_heads.mask_head[0][0]
    conv.dilation = conv.padding = (2, 2)


def no_extra_level(model: Any) -> None:
    model.backbone.fpn.extra_blocks = None
    sizes = ((32,), (64,), (128,), (256,))
    model.rpn.anchor_generator = AnchorGenerator(sizes, _RATIOS[:4])


def other_pooler(head: str) -> Change:
    side = 7 if head == "box" else 10  # a linear layer has the box head's
    return put(
        f"roi_heads.{head}_roi_pool",
        MultiScaleRoIAlign(["1"], side, 3, canonical_scale=112, canonical_level=3),
    )


def pooler_after_photos(head: str) -> Change:
    """Scales and level rule are taken from the first photos, and kept."""

    def change(model: Any) -> None:
        pooler = model.get_submodule(f"roi_heads.{head}_roi_pool")
        pooler.scales = [1 / 8, 1 / 16, 1 / 32, 1 / 64]
        pooler.map_levels = initLevelMapper(3, 6, eps=1e-3)

    return change


# Some at a time, because reading a live model takes long.
ROUNDS: tuple[tuple[Change, ...], ...] = (
    (
        other_eps,
        dilate(slice(None)),
        put("transform.min_size", (160,)),
        put("transform.max_size", 900),
        put("transform.image_mean", [0.5, 0.5, 0.5]),
        put("transform.image_std", [0.5, 0.5, 0.5]),
        put("transform.size_divisible", 64),
        put(
            "rpn.anchor_generator",
            AnchorGenerator(((16,), (32,), (64,), (128,), (256,)), ((0.3, 1.0, 3.0),) * 5),
        ),
        put("rpn._pre_nms_top_n.testing", 500),
        put("rpn._post_nms_top_n.testing", 200),
        put("rpn.nms_thresh", 0.6),
        put("rpn.score_thresh", 0.1),
        put("rpn.min_size", 4.0),
        put("rpn.box_coder.weights", (2.0, 2.0, 1.0, 1.0)),
        put("rpn.box_coder.bbox_xform_clip", 2.0),
        put("roi_heads.score_thresh", 0.3),
        put("roi_heads.nms_thresh", 0.3),
        put("roi_heads.detections_per_img", 300),
        put("roi_heads.box_coder.weights", (5.0, 5.0, 2.0, 2.0)),
        put("roi_heads.box_coder.bbox_xform_clip", 2.0),
    ),
    (
        dilate(slice(1, None)),
        put("transform.fixed_size", (224, 160)),
        put(
            "rpn.anchor_generator.cell_anchors",
            [torch.tensor([[-20.0, -10.0, 20.0, 10.0]] * 3)] * 5,
        ),
    ),
    (no_extra_level,),
)


def listed(model: nn.Module) -> set[str]:
    """The fields in the listing for a checkpoint of the model."""
    state = DIALECT.prepare(model.state_dict(), Path("w.pth"))
    reading = DIALECT.read(state, Source(Path("w.pth"), "0" * 64))
    return {row.field for row in assumptions(reading.spec, reading.assumed, SpecOptions())}


def different(spec: ModelSpec, other: ModelSpec) -> set[str]:
    before, after = dict(leaves(spec)), dict(leaves(other))
    return {path for path in before if before[path] != after.get(path)}


@pytest.mark.parametrize("head", ["mask", "keypoint"])
def test_every_field_that_weights_cannot_tell_is_listed(head: str) -> None:
    """What differs between live models with the same weights is listed, and nothing else."""
    model = _live(head)
    base, known = read_live(model).spec, listed(model)
    found: set[str] = set()
    for number, changes in enumerate(ROUNDS):
        changed = copy.deepcopy(model)
        pooling = (other_pooler, pooler_after_photos)[number:][:1]
        own = [dilate_mask_head] if head == "mask" and number == 0 else []
        for change in (*changes, *own, *(p(h) for p in pooling for h in ("box", head))):
            change(changed)
        fields = different(base, read_live(changed).spec)
        assert fields <= known, "a field that weights cannot tell is not listed"
        found |= fields
    assert found == known - {"classes.names", "keypoint.names"}
