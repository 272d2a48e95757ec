"""Small live models of torchvision with values and parts that a checkpoint does not tell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

WIDTH, CLASSES = 8, 3
_BODY_WIDTHS = (8, 12, 16, 24)


class SmallBody(nn.Module):
    """Four maps of strides 4 to 32 in a dictionary, without a class of torchvision."""

    def __init__(self, channels: int = 3, width: int = 0) -> None:
        super().__init__()
        widths = (width,) * 4 if width else _BODY_WIDTHS
        inputs = (channels, *widths[:-1])
        self.stem = nn.Sequential(nn.Conv2d(channels, channels, 3, 2, 1), nn.GELU())
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.GroupNorm(2, o), nn.SiLU())
            for i, o in zip(inputs, widths, strict=True)
        )
        self.out_channels = widths[-1]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        maps = OrderedDict()
        for index, stage in enumerate(self.stages):
            x = stage(x)
            maps[f"s{index}"] = x
        return maps


class LastMap(nn.Sequential):
    """`SmallBody` with its last map only, as a tensor."""

    def __init__(self) -> None:
        body = SmallBody()
        super().__init__(body.stem, *body.stages)
        self.out_channels = _BODY_WIDTHS[-1]


class CosinePredictor(nn.Module):
    """Scores by the angle to each class's direction."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(classes, inputs))
        self.deltas = nn.Linear(inputs, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.view(x.size(0), -1)
        scores = nn.functional.normalize(x) @ nn.functional.normalize(self.directions).T
        return 5 * scores, self.deltas(x)


class SeparableMaskHead(nn.Module):
    """Depthwise and pointwise convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)
        self.point = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.gelu(self.point(self.depth(x)))


class ResizedMaskPredictor(nn.Module):
    """An interpolation instead of a deconvolution, to three times the side."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=3.0, mode="bilinear", align_corners=False)
        return self.logits(x)


class TwoTowers(nn.Module):
    """An RPN head with a tower for scores and another one for deltas."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.scores = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.SiLU())
        self.boxes = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.SiLU())
        self.cls, self.reg = nn.Conv2d(channels, anchors, 1), nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores = [self.cls(self.scores(m)) for m in maps]
        return scores, [self.reg(self.boxes(m)) for m in maps]


class WideAnchors(AnchorGenerator):
    """Anchors that are not rounded, and another one per cell."""

    def generate_anchors(self, scales: Any, aspect_ratios: Any, *args: Any, **kw: Any) -> Tensor:
        anchors = super().generate_anchors(scales, aspect_ratios, *args, **kw)
        return anchors * 1.07


class Subclass(MaskRCNN):
    """A subclass that only passes on."""

    def forward(self, images: Any, targets: Any = None) -> Any:
        return super().forward(images, targets)


def resnet_body(**options: Any) -> nn.Module:
    """The smallest ResNet of torchvision's classes, at an eighth of its width."""
    network = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], **options)
    norm = options.get("norm_layer", nn.BatchNorm2d)
    inputs = 8
    network.conv1, network.bn1 = nn.Conv2d(3, inputs, 7, 2, 3, bias=False), norm(inputs)
    dilations = options.get("replace_stride_with_dilation", (False,) * 3)
    for index, width in enumerate(_BODY_WIDTHS):
        dilated = index > 0 and dilations[index - 1]
        stride = 1 if index == 0 or dilated else 2
        shortcut = None
        if stride > 1 or inputs != width:
            convolution = nn.Conv2d(inputs, width, 1, stride, bias=False)
            shortcut = nn.Sequential(convolution, norm(width))
        block = resnet.BasicBlock(inputs, width, stride, shortcut, norm_layer=norm)
        setattr(network, f"layer{index + 1}", nn.Sequential(block))
        inputs = width
    return network


def pyramid(body: nn.Module | None = None, **options: Any) -> nn.Module:
    """A pyramid over four stages."""
    names = {f"layer{i + 1}": str(i) for i in range(4)}
    options = {"extra_blocks": LastLevelMaxPool(), **options}
    return BackboneWithFPN(body or resnet_body(), names, list(_BODY_WIDTHS), WIDTH, **options)


def heads(channels: int = WIDTH, classes: int = CLASSES) -> dict[str, Any]:
    """Small heads of torchvision's classes."""
    return {
        "box_head": TwoMLPHead(channels * 49, 16),
        "box_predictor": FastRCNNPredictor(16, classes),
        "mask_head": MaskRCNNHeads(channels, (WIDTH,), 1),
        "mask_predictor": MaskRCNNPredictor(WIDTH, WIDTH, classes),
    }


def mask_rcnn(
    backbone: nn.Module | None = None, kind: type = MaskRCNN, **options: Any
) -> nn.Module:
    """A Mask R-CNN for photos of 64 to 128 pixels."""
    backbone = backbone or pyramid()
    defaults: dict[str, Any] = {
        **heads(backbone.out_channels),
        "min_size": 96,
        "max_size": 160,
        "box_detections_per_img": 20,
        "rpn_pre_nms_top_n_test": 100,
        "rpn_post_nms_top_n_test": 50,
    }
    return kind(backbone, **{**defaults, **options})


def faster_rcnn(backbone: nn.Module, **options: Any) -> nn.Module:
    """A Faster R-CNN, of one map unless `options` have anchors of more."""
    own = heads(backbone.out_channels)
    own = {name: part for name, part in own.items() if name.startswith("box")}
    one_map = {
        "rpn_anchor_generator": AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),)),
        "box_roi_pool": MultiScaleRoIAlign(["0"], 7, 2),
    }
    return mask_rcnn_like(FasterRCNN, backbone, {**own, **one_map, **options})


def mask_rcnn_like(kind: type, backbone: nn.Module, options: dict[str, Any]) -> nn.Module:
    """A model of another class with the sizes and counts of `mask_rcnn`."""
    counts = {"rpn_pre_nms_top_n_test": 100, "rpn_post_nms_top_n_test": 50}
    sizes = {"min_size": 96, "max_size": 160, "box_detections_per_img": 20}
    return kind(backbone, **{**sizes, **counts, **options})


def keypoint_rcnn(**options: Any) -> nn.Module:
    """Five keypoints, with torchvision's head."""
    own = {name: part for name, part in heads(classes=2).items() if name.startswith("box")}
    keypoints = {
        "keypoint_head": KeypointRCNNHeads(WIDTH, (WIDTH, WIDTH)),
        "keypoint_predictor": KeypointRCNNPredictor(WIDTH, 5),
    }
    return mask_rcnn_like(KeypointRCNN, pyramid(), {**own, **keypoints, **options})


def _changed(model: nn.Module, change: Callable[[nn.Module], None]) -> nn.Module:
    change(model)
    return model


def _box_coders(model: nn.Module) -> None:
    model.roi_heads.box_coder.weights = (8.0, 9.0, 4.0, 3.0)
    model.rpn.box_coder.weights = (1.0, 2.0, 1.0, 1.5)
    model.roi_heads.box_coder.bbox_xform_clip = 0.2
    model.rpn.box_coder.bbox_xform_clip = 0.1


def _dilate(network: nn.Module) -> nn.Module:
    for part in network.layer4.modules():
        if isinstance(part, nn.Conv2d):
            if part.kernel_size == (3, 3):
                part.dilation, part.padding = (2, 2), (2, 2)
            part.stride = (1, 1)
    return network


def _mixed_epsilons(network: nn.Module) -> nn.Module:
    network.layer2[0].bn1.eps = 0.3
    return network


def _four_levels() -> nn.Module:
    backbone = pyramid()
    backbone.fpn.extra_blocks = None
    return backbone


def _small_body(channels: int = 3) -> nn.Module:
    return SmallBody(channels, WIDTH)


_FOUR_LEVELS = AnchorGenerator(((16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 4)
_SIX_LEVELS = AnchorGenerator(((8,), (16,), (32,), (64,), (128,), (256,)), ((0.5, 2.0),) * 6)


def _pools(names: list[str], **options: Any) -> dict[str, nn.Module]:
    return {
        "box_roi_pool": MultiScaleRoIAlign(names, 7, 2, **options),
        "mask_roi_pool": MultiScaleRoIAlign(names, 14, 2, **options),
    }


def of_channels(channels: int) -> nn.Module:
    """A model of photos of that many bands."""
    return mask_rcnn(
        _small_body(channels),
        rpn_anchor_generator=_FOUR_LEVELS,
        image_mean=[0.5] * channels,
        image_std=[0.25] * channels,
        **_pools(["s0", "s1"]),
    )


# Name to model; the tests run each against its object.
OWN: dict[str, Callable[[], nn.Module]] = {
    "defaults": mask_rcnn,
    "frozen norms": lambda: mask_rcnn(pyramid(resnet_body(norm_layer=FrozenBatchNorm2d))),
    "odd epsilon": lambda: mask_rcnn(
        pyramid(resnet_body(norm_layer=lambda c: nn.BatchNorm2d(c, eps=0.07)))
    ),
    "dilated": lambda: mask_rcnn(pyramid(_dilate(resnet_body()))),
    "pooled levels": lambda: mask_rcnn(**_pools(["1", "2"])),
    "pooled with the extra level": lambda: mask_rcnn(**_pools(["2", "3", "pool"])),
    "level rule": lambda: mask_rcnn(
        **_pools(["0", "1", "2", "3"], canonical_scale=50, canonical_level=3)
    ),
    "adaptive sampling": lambda: mask_rcnn(box_roi_pool=MultiScaleRoIAlign(["0", "1"], 7, -1)),
    "mask dilation": lambda: mask_rcnn(mask_head=MaskRCNNHeads(WIDTH, (WIDTH, WIDTH), 3)),
    "larger masks": lambda: mask_rcnn(mask_roi_pool=MultiScaleRoIAlign(["0", "1"], 10, 1)),
    "anchors": lambda: mask_rcnn(
        rpn_anchor_generator=AnchorGenerator(
            ((4, 9), (16, 20), (32, 50), (64, 90), (128, 200)), ((0.3, 1.0, 3.0),) * 5
        )
    ),
    "anchors per level": lambda: mask_rcnn(
        rpn_anchor_generator=AnchorGenerator(
            ((8,), (16,), (32,), (64,), (128,)), tuple((0.4 + 0.1 * i, 1.5) for i in range(5))
        )
    ),
    "anchors of a subclass": lambda: mask_rcnn(
        rpn_anchor_generator=WideAnchors(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0),) * 5)
    ),
    "two RPN convolutions": lambda: mask_rcnn(rpn_head=RPNHead(WIDTH, 3, conv_depth=2)),
    "convolutional box head": lambda: mask_rcnn(
        box_head=FastRCNNConvFCHead((WIDTH, 7, 7), [WIDTH, 12], [16], norm_layer=nn.BatchNorm2d)
    ),
    "thresholds": lambda: mask_rcnn(
        box_score_thresh=0.3,
        box_nms_thresh=0.3,
        box_detections_per_img=33,
        rpn_pre_nms_top_n_test=80,
        rpn_post_nms_top_n_test=40,
        rpn_nms_thresh=0.6,
        rpn_score_thresh=0.2,
    ),
    "every score": lambda: mask_rcnn(box_score_thresh=-1.0, box_detections_per_img=1000),
    "box coders": lambda: _changed(mask_rcnn(), _box_coders),
    "fixed size": lambda: mask_rcnn(fixed_size=(96, 128)),
    "size divisor": lambda: mask_rcnn(size_divisible=64),
    "short side above the long one": lambda: mask_rcnn(min_size=200, max_size=128),
    "several sides": lambda: mask_rcnn(min_size=(64, 80)),
    "mean and std": lambda: mask_rcnn(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]),
    "one mean": lambda: mask_rcnn(image_mean=[0.4], image_std=[0.3]),
    "keypoints": keypoint_rcnn,
    "subclass": lambda: mask_rcnn(kind=Subclass),
    "no extra level": lambda: mask_rcnn(_four_levels(), rpn_anchor_generator=_FOUR_LEVELS),
}
KEPT: dict[str, Callable[[], nn.Module]] = {
    "groups of two channels": lambda: mask_rcnn(pyramid(norm_layer=lambda c: nn.GroupNorm(4, c))),
    "one map": lambda: faster_rcnn(LastMap()),
    "a dictionary of maps": lambda: mask_rcnn(
        _small_body(), rpn_anchor_generator=_FOUR_LEVELS, **_pools(["s0", "s1", "s2", "s3"])
    ),
    "one map of the dictionary": lambda: mask_rcnn(
        _small_body(), rpn_anchor_generator=_FOUR_LEVELS, **_pools(["s2"])
    ),
    "levels P6 and P7": lambda: mask_rcnn(
        pyramid(extra_blocks=LastLevelP6P7(WIDTH, WIDTH)), rpn_anchor_generator=_SIX_LEVELS
    ),
    "different epsilons": lambda: mask_rcnn(pyramid(_mixed_epsilons(resnet_body()))),
    "four channels": lambda: of_channels(4),
    "cosine predictor": lambda: mask_rcnn(box_predictor=CosinePredictor(16, CLASSES)),
    "mask head": lambda: mask_rcnn(mask_head=SeparableMaskHead(WIDTH)),
    "mask predictor": lambda: mask_rcnn(mask_predictor=ResizedMaskPredictor(WIDTH, CLASSES)),
    "RPN head": lambda: mask_rcnn(rpn_head=TwoTowers(WIDTH, 3)),
    "keypoint predictor": lambda: keypoint_rcnn(keypoint_predictor=ResizedMaskPredictor(WIDTH, 5)),
}
VARIANTS = {**OWN, **KEPT}


# Factors with which the outputs of untrained predictors spread, but not more than they round.
_SPREAD = {"rpn.cls_logits": 100.0, "rpn.bbox_pred": 30.0, "cls_score": 6.0, "bbox_pred": 3.0}
_SPREAD |= {"cls_logits": 1.0}


def built(name: str) -> nn.Module:
    """The model of that name, seeded, in eval mode, with spread scores and deltas."""
    return spread(VARIANTS[name])


def spread(make: Callable[[], nn.Module]) -> nn.Module:
    """The model that a function makes, likewise."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for path, part in model.named_modules():
            name = path.rpartition(".")[2]
            if name in _SPREAD:
                part.weight.mul_(_SPREAD["rpn." * path.startswith("rpn.") + name])
    return model
