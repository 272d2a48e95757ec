"""The network, written once: static counts, a validity mask instead of dropped rows.

Legend: N images, H x W canvas, D detections per image, M mask side.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from model.bodies.mobilenet import MobileNetV3Body
from model.bodies.resnet import ResNetBody
from model.heads.box import BoxHead, DetectionSelector, Selection
from model.heads.mask import MaskHead
from model.heads.rpn import RegionProposalNetwork
from model.ops import Operators, RoIPooler
from model.spec import FpnSpec, ModelSpec, PreprocessSpec, ResNetSpec


class Outputs(NamedTuple):
    """What the graph answers; the same fields, in this order, in every exported file.

    boxes float32 [N, D, 4] xyxy canvas pixels; scores float32 [N, D]; labels int32 [N, D];
    masks float32 [N, D, M, M] probabilities (None for box-only models); counts int32 [N], the
    valid rows, which come first; nms_open, candidates_cut int32 [N], 0 where the result is the
    exact greedy one.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None
    counts: Tensor
    nms_open: Tensor
    candidates_cut: Tensor


class Normalise(nn.Module):
    """(image - mean) / std inside each image, zero in the padding."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: PreprocessSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, image_hw: Tensor) -> Tensor:
        """Map float32 [N, 3, H, W] to the same shape."""
        y = torch.arange(images.shape[2], device=images.device)[None, :, None]
        x = torch.arange(images.shape[3], device=images.device)[None, None, :]
        inside = (y < image_hw[:, 0, None, None]) & (x < image_hw[:, 1, None, None])  # [N, H, W]
        # Eager models pad after they normalise: the padding is zero, not the mean colour.
        return torch.where(inside[:, None], (images - self.mean) / self.std, 0.0)


class MaskRCNN(nn.Module):
    """Mask R-CNN (and Faster R-CNN) as a spec describes it.

    The names of the children are the roles that the exported graph's nodes carry.

    Source: Mask R-CNN; torchvision `GeneralizedRCNN` with its transform taken out: the resize is
    the runtime's work, normalisation is done here.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.normalise = Normalise(spec.preprocess)
        is_resnet = isinstance(spec.body, ResNetSpec)
        self.body = ResNetBody(spec.body) if is_resnet else MobileNetV3Body(spec.body)  # type: ignore[arg-type]
        self.fpn = None if spec.fpn is None else _fpn(spec.fpn, self.body.channels)
        channels = self.body.channels[-1] if spec.fpn is None else spec.fpn.channels
        self.rpn = RegionProposalNetwork(channels, spec.rpn, spec.anchors, _level_strides(spec))
        self.box_pool = RoIPooler(spec.box.pooler)
        self.box_head = BoxHead(channels, spec.box, spec.num_foreground)
        self.select = DetectionSelector(spec.box)
        self.mask_head: MaskHead | None = None
        if spec.mask is not None:
            background_first = spec.box.background == "first"
            num_outputs = 1 if spec.mask.class_agnostic else spec.num_foreground + background_first
            self.mask_pool = RoIPooler(spec.mask.pooler)
            self.mask_head = MaskHead(channels, spec.mask, num_outputs)

    def forward(self, images: Tensor, image_hw: Tensor) -> Outputs:
        """Detect.

        Args:
            images: float32 [N, 3, H, W], resized, in the spec's channel order and value range,
                each at the top left of the canvas; what lies outside `image_hw` is ignored.
            image_hw: float32 [N, 2], height and width of each image on the canvas, in pixels.
        """
        canvas_hw = (images.shape[2], images.shape[3])
        features = self.features(images, image_hw)
        proposals, valid, rpn_open = self.rpn(features, canvas_hw, image_hw)
        logits, deltas = self.box_head(self.box_pool(features, proposals, valid))
        # Scores and coordinates are float32 whatever type the heads ran in.
        found = self.select(logits.float(), deltas.float(), proposals, valid, image_hw)
        return Outputs(
            found.boxes,
            found.scores,
            found.labels.to(torch.int32),
            self._masks(features, found),
            found.valid.sum(dim=1).to(torch.int32),
            rpn_open + found.nms_open,
            found.candidates_cut,
        )

    def use_operators(self, operators: Operators) -> None:
        """Pool and suppress in another way from now on, for instance `StaticOperators`."""
        for module in self.modules():
            if isinstance(module, RoIPooler | RegionProposalNetwork | DetectionSelector):
                module.operators = operators

    def features(self, images: Tensor, image_hw: Tensor) -> list[Tensor]:
        """Normalise, zero the padding, and answer one float32 [N, C, H_l, W_l] per level."""
        body: list[Tensor] = self.body(self.normalise(images, image_hw))
        if self.fpn is None:
            return body
        levels = OrderedDict((str(i), feature) for i, feature in enumerate(body))
        return list(self.fpn(levels).values())

    def _masks(self, features: list[Tensor], found: Selection) -> Tensor | None:
        if self.mask_head is None:
            return None
        pooled = self.mask_pool(features, found.boxes, found.valid)
        masks = self.mask_head(pooled, found.labels.reshape(-1))
        masks = torch.where(found.valid.reshape(-1, 1, 1), masks, 0.0)
        return masks.reshape(*found.valid.shape, masks.shape[1], masks.shape[2])


def _fpn(spec: FpnSpec, channels: list[int]) -> FeaturePyramidNetwork:
    norm = partial(nn.BatchNorm2d, eps=spec.norm_eps) if spec.norm == "batch_norm" else None
    extra = LastLevelMaxPool() if spec.extra_level == "pool" else None
    return FeaturePyramidNetwork(channels, spec.channels, extra, norm)


def _level_strides(spec: ModelSpec) -> tuple[int, ...]:
    """Nominal strides of the levels that the RPN sees."""
    strides = spec.box.pooler.strides
    has_extra = spec.fpn is not None and spec.fpn.extra_level == "pool"
    return (*strides, 2 * strides[-1]) if has_extra else strides
