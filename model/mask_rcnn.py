"""The network: static counts, and a validity mask instead of dropped rows.

Legend: N images, H x W canvas, D detections per image, M mask side, J keypoints, S map side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.bodies.fpn import FeaturePyramid
from model.bodies.mobilenet import MobileNetV3Body
from model.bodies.resnet import ResNetBody, RoIStage
from model.errors import SpecError
from model.heads.box import BoxHead
from model.heads.kept import KeptParts
from model.heads.keypoint import KeypointHead
from model.heads.mask import MaskHead
from model.heads.rpn import RegionProposalNetwork
from model.heads.selection import DetectionSelector, Selection
from model.ops import Operators, RoIPooler
from model.placement import Windows, image_windows
from model.spec import MobileNetV3Spec, ModelSpec, PreprocessSpec, ResNetSpec


class Outputs(NamedTuple):
    """Outputs of the network; every exported file has the same fields in this order.

    boxes float32 [N, D, 4] xyxy canvas pixels; scores float32 [N, D]; labels int32 [N, D];
    masks float32 [N, D, M, M] probabilities (None without a mask head); keypoint_heatmaps
    float32 [N, D, J, S, S] logits (None without a keypoint head); counts int32 [N], the valid
    rows, which come first; nms_open, candidates_cut, samples_cut int32 [N], 0 if the result is
    exact.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None
    keypoint_heatmaps: Tensor | None
    counts: Tensor
    nms_open: Tensor
    candidates_cut: Tensor
    samples_cut: Tensor


class Normalize(nn.Module):
    """(image - mean) / std inside each image; the padding is zero after or before that."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: PreprocessSpec) -> None:
        super().__init__()
        self.pads_first = spec.padding == "zero-before"
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (spec.mean, spec.std))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor, windows: Windows) -> Tensor:
        """Map float32 [N, C, H, W] to the same shape."""
        # Most eager models normalize before they pad, so that the padding is zero.
        inside = windows.inside()[:, None]
        if self.pads_first:
            return (torch.where(inside, images, 0.0) - self.mean) / self.std
        return torch.where(inside, (images - self.mean) / self.std, 0.0)


class MaskRCNN(nn.Module):
    """Mask R-CNN, Faster R-CNN and Keypoint R-CNN as a spec describes them.

    The names of the children are the roles of the exported graph's nodes, stored in every file.
    `kept` has the modules of the user that take the place of the spec's layers.

    Source: Mask R-CNN; torchvision `GeneralizedRCNN` without its transform: the runtime resizes,
    the network normalizes.
    """

    def __init__(self, spec: ModelSpec, kept: KeptParts | None = None) -> None:
        super().__init__()
        kept = kept or KeptParts()
        _require_parts(spec, kept)
        self.spec = spec
        self.normalise = Normalize(spec.preprocess)
        self.body, body_channels = _body(spec, kept)
        self.fpn = None if spec.fpn is None else FeaturePyramid(body_channels, spec.fpn)
        channels = body_channels[-1] if spec.fpn is None else spec.fpn.channels
        self.rpn = RegionProposalNetwork(
            channels, spec.rpn, spec.anchors, _level_strides(spec), kept.rpn_head
        )
        self.box_pool = RoIPooler(spec.box.pooler)
        self.roi_stage: RoIStage | None = None
        if spec.roi_stage is not None:
            self.roi_stage = RoIStage(channels, spec.roi_stage)
            channels = spec.roi_stage.channels
        self._add_heads(spec, channels, kept)

    def _add_heads(self, spec: ModelSpec, channels: int, kept: KeptParts) -> None:
        classes, has_stage = spec.num_foreground, self.roi_stage is not None
        side = spec.box.pooler.output_size
        self.box_head = kept.box_head or BoxHead(channels, side, spec.box, classes, mean=has_stage)
        self.select = DetectionSelector(spec.box, classes, spec.anchors.end_shift)
        self.mask_head: nn.Module | None = None
        if spec.mask is not None:
            num_outputs = 1 if spec.mask.class_agnostic else len(spec.classes.names)
            self.mask_pool = RoIPooler(spec.mask.pooler)
            self.mask_head = kept.mask_head or MaskHead(channels, spec.mask, num_outputs)
        self.keypoint_head: nn.Module | None = None
        if spec.keypoint is not None:
            self.keypoint_pool = RoIPooler(spec.keypoint.pooler)
            self.keypoint_head = kept.keypoint_head or KeypointHead(channels, spec.keypoint)

    def forward(self, images: Tensor, image_hw: Tensor) -> Outputs:
        """Detect objects.

        Args:
            images: float32 [N, C, H, W], resized, in the spec's channel order and value range,
                placed on the canvas as the spec has it; pixels outside the images are ignored.
            image_hw: float32 [N, 2], height and width of each image on the canvas, in pixels.
        """
        canvas_hw = images.shape[2], images.shape[3]
        windows = image_windows(image_hw, canvas_hw, self.spec.preprocess.placement)
        features = self.features(images, windows)
        proposals, valid, rpn_open = self.rpn(features, windows)
        pooled, box_cut = self.box_pool(features, proposals, valid)
        logits, deltas = self.box_head(self._run_roi_stage(pooled))
        # Scores and coordinates are float32 in every precision of the heads.
        selection = self.select(logits.float(), deltas.float(), proposals, valid, windows)
        masks, mask_cut = self._masks(features, selection)
        heatmaps, keypoint_cut = self._heatmaps(features, selection)
        cuts = [box_cut, *(cut for cut in (mask_cut, keypoint_cut) if cut is not None)]
        return Outputs(
            selection.boxes,
            selection.scores,
            selection.labels.to(torch.int32),
            masks,
            heatmaps,
            selection.valid.sum(dim=1).to(torch.int32),
            rpn_open + selection.nms_open,
            selection.candidates_cut,
            torch.stack(cuts).sum(dim=0).to(torch.int32),
        )

    def use_operators(self, operators: Operators) -> None:
        """Replace pooling and NMS, for instance by `StaticOperators`."""
        for module in self.modules():
            if isinstance(module, RoIPooler | RegionProposalNetwork | DetectionSelector):
                module.operators = operators

    def features(self, images: Tensor, windows: Windows) -> list[Tensor]:
        """Normalize, zero the padding, and compute float32 [N, C, H_l, W_l] per level."""
        body: list[Tensor] = self.body(self.normalise(images, windows))
        return body if self.fpn is None else self.fpn(body)

    def _run_roi_stage(self, pooled: Tensor) -> Tensor:
        return pooled if self.roi_stage is None else self.roi_stage(pooled)

    def _masks(
        self, features: list[Tensor], selection: Selection
    ) -> tuple[Tensor | None, Tensor | None]:
        if self.mask_head is None:
            return None, None
        valid = selection.valid
        pooled, cut = self.mask_pool(features, selection.boxes, valid)
        masks = self.mask_head(self._run_roi_stage(pooled), selection.labels.reshape(-1))
        masks = torch.where(valid.reshape(-1, 1, 1), masks, 0.0)
        return masks.reshape(*valid.shape, masks.shape[1], masks.shape[2]), cut

    def _heatmaps(
        self, features: list[Tensor], selection: Selection
    ) -> tuple[Tensor | None, Tensor | None]:
        if self.keypoint_head is None:
            return None, None
        valid = selection.valid
        pooled, cut = self.keypoint_pool(features, selection.boxes, valid)
        heatmaps = self.keypoint_head(pooled)
        heatmaps = torch.where(valid.reshape(-1, 1, 1, 1), heatmaps, 0.0)
        return heatmaps.reshape(*valid.shape, *heatmaps.shape[1:]), cut


def _require_parts(spec: ModelSpec, kept: KeptParts) -> None:
    """Refuse a spec of the user's own modules without those modules."""
    heads = {
        "body": (getattr(spec.body, "name", ""), kept.body),
        "RPN head": (spec.rpn.module, kept.rpn_head),
        "box head": (spec.box.module, kept.box_head),
        "mask head": (spec.mask.module if spec.mask else "", kept.mask_head),
        "keypoint head": (spec.keypoint.module if spec.keypoint else "", kept.keypoint_head),
    }
    for part, (name, module) in heads.items():
        if name and module is None:
            raise SpecError(
                f"spec: the {part} is a module of the user, {name}, which a spec cannot describe; "
                "pass the model itself (--model)"
            )


def _body(spec: ModelSpec, kept: KeptParts) -> tuple[nn.Module, Sequence[int]]:
    """The body, and the channels of its outputs."""
    if kept.body is not None:
        return kept.body, [spec.body.channels[i] for i in spec.body.outputs]
    inputs = spec.preprocess.channels
    if isinstance(spec.body, ResNetSpec):
        resnet = ResNetBody(spec.body, inputs)
        return resnet, resnet.channels
    assert isinstance(spec.body, MobileNetV3Spec)
    mobilenet = MobileNetV3Body(spec.body, inputs)
    return mobilenet, mobilenet.channels


def _level_strides(spec: ModelSpec) -> tuple[int, ...]:
    """Nominal strides of the RPN's levels; empty if the anchors do not need them."""
    if spec.anchors.stride_rule == "canvas":
        return ()
    strides = spec.box.pooler.strides
    has_extra = spec.fpn is not None and spec.fpn.extra_level == "pool"
    return (*strides, 2 * strides[-1]) if has_extra else strides
