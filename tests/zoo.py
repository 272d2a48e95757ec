"""Small torchvision models of every supported kind, and the models of its builders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision.models import mobilenet_v3_large, resnet
from torchvision.models.detection import (
    FasterRCNN,
    KeypointRCNN,
    MaskRCNN,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import (
    BackboneWithFPN,
    _mobilenet_extractor,
    resnet_fpn_backbone,
)
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

SHORT_SIDE, LONG_SIDE = 160, 288
_WIDTH = 32


def _with_fpn(body: resnet.ResNet, **options: Any) -> BackboneWithFPN:
    last = body.fc.in_features
    channels = [last // 8, last // 4, last // 2, last]
    returned = {f"layer{i + 1}": str(i) for i in range(4)}
    return BackboneWithFPN(body, returned, channels, _WIDTH, LastLevelMaxPool(), **options)


def _heads(classes: int, width: int = _WIDTH, masks: bool = True) -> dict[str, Any]:
    heads: dict[str, Any] = {
        "box_head": TwoMLPHead(width * 49, 64),
        "box_predictor": FastRCNNPredictor(64, classes),
    }
    if masks:
        heads["mask_head"] = MaskRCNNHeads(width, (width, width), 1)
        heads["mask_predictor"] = MaskRCNNPredictor(width, width, classes)
    return heads


def _mask_rcnn(body: Callable[..., resnet.ResNet], classes: int) -> GeneralizedRCNN:
    backbone = _with_fpn(body(weights=None))
    return MaskRCNN(backbone, min_size=SHORT_SIDE, max_size=LONG_SIDE, **_heads(classes))


def _v2(classes: int) -> GeneralizedRCNN:
    """`maskrcnn_resnet50_fpn_v2` as torchvision builds it, at an eighth of its width."""
    norm, width = nn.BatchNorm2d, _WIDTH
    backbone = _with_fpn(resnet.resnet50(weights=None), norm_layer=norm)
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    return MaskRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(width, 3, conv_depth=2),
        box_head=FastRCNNConvFCHead((width, 7, 7), [width] * 4, [64], norm_layer=norm),
        box_predictor=FastRCNNPredictor(64, classes),
        mask_head=MaskRCNNHeads(width, [width] * 4, 1, norm_layer=norm),
        mask_predictor=MaskRCNNPredictor(width, width, classes),
        min_size=SHORT_SIDE,
        max_size=LONG_SIDE,
    )


def _mobilenet_mask_rcnn(classes: int) -> GeneralizedRCNN:
    trunk = mobilenet_v3_large(weights=None, width_mult=0.5, norm_layer=nn.BatchNorm2d)
    backbone = _mobilenet_extractor(trunk, True, 6)
    sizes = ((32, 64, 128, 256, 512),) * 3
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 3)
    return MaskRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        min_size=SHORT_SIDE,
        max_size=LONG_SIDE,
        **_heads(classes, 256),
    )


def _mobilenet_faster_rcnn(classes: int) -> GeneralizedRCNN:
    return fasterrcnn_mobilenet_v3_large_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=classes,
        min_size=SHORT_SIDE,
        max_size=LONG_SIDE,
    )


def _faster_rcnn(classes: int) -> GeneralizedRCNN:
    backbone = _with_fpn(resnet.resnet18(weights=None))
    return FasterRCNN(
        backbone, min_size=SHORT_SIDE, max_size=LONG_SIDE, **_heads(classes, masks=False)
    )


def _keypoint_rcnn() -> GeneralizedRCNN:
    """Of persons, as torchvision's builder; masks as well, which its RoI heads allow."""
    heads = _heads(classes=2)
    masks = {name: heads.pop(name) for name in ("mask_head", "mask_predictor")}
    masks["mask_roi_pool"] = MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
    model = KeypointRCNN(
        _with_fpn(resnet.resnet18(weights=None)),
        min_size=SHORT_SIDE,
        max_size=LONG_SIDE,
        keypoint_head=KeypointRCNNHeads(_WIDTH, (_WIDTH, 24)),
        keypoint_predictor=KeypointRCNNPredictor(24, 17),
        **heads,
    )
    for name, part in masks.items():
        setattr(model.roi_heads, name, part)
    return model


def _resnext_32x8d(**_: None) -> resnet.ResNet:
    """The blocks of `resnext101_32x8d`, one to a stage: 12 million weights instead of 87."""
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], groups=32, width_per_group=8)


def _built(builder: Callable[..., GeneralizedRCNN]) -> GeneralizedRCNN:
    """As torchvision's builder makes it, at its full width; of small pictures."""
    return builder(weights=None, weights_backbone=None, min_size=SHORT_SIDE, max_size=LONG_SIDE)


def _resnext101() -> GeneralizedRCNN:
    backbone = resnet_fpn_backbone(
        backbone_name="resnext101_32x8d", weights=None, norm_layer=nn.BatchNorm2d
    )
    return MaskRCNN(backbone, 91, min_size=SHORT_SIDE, max_size=LONG_SIDE)


ZOO: dict[str, Callable[[], GeneralizedRCNN]] = {
    "v2-91": partial(_v2, 91),
    "resnet18-2": partial(_mask_rcnn, resnet.resnet18, 2),
    "resnet101-5": partial(_mask_rcnn, resnet.resnet101, 5),
    "resnext50-91": partial(_mask_rcnn, resnet.resnext50_32x4d, 91),
    "mobilenet-21": partial(_mobilenet_mask_rcnn, 21),
    "faster-rcnn-resnet18-91": partial(_faster_rcnn, 91),
    "faster-rcnn-mobilenet-2": partial(_mobilenet_faster_rcnn, 2),
    "keypoints-17-and-masks": _keypoint_rcnn,
    "resnext-32x8d-5": partial(_mask_rcnn, _resnext_32x8d, 5),
    "keypointrcnn_resnet50_fpn": partial(_built, keypointrcnn_resnet50_fpn),
    "fasterrcnn_resnet50_fpn": partial(_built, fasterrcnn_resnet50_fpn),
    "fasterrcnn_resnet50_fpn_v2": partial(_built, fasterrcnn_resnet50_fpn_v2),
    "maskrcnn-resnext101_32x8d": _resnext101,
}
