"""torchvision's own model for a checkpoint: the reference for all comparisons.

Everything is torchvision's code, so that an error of our network is a difference of the check; only
a ResNet of widths that torchvision's blocks cannot have is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
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
from torchvision.ops.poolers import initLevelMapper

from model.bodies.resnet import ResNetBody
from model.errors import SpecError
from model.families.torchvision.reference_body import (
    has_blocks,
    mobilenet_body,
    norm_of,
    resnet_body,
)
from model.spec import (
    BoxHeadSpec,
    FpnSpec,
    KeypointHeadSpec,
    MaskHeadSpec,
    MobileNetV3Spec,
    ModelSpec,
    PoolerSpec,
    ResNetSpec,
)


def eager_model(spec: ModelSpec, tensors: Mapping[str, Tensor]) -> GeneralizedRCNN:
    """Build torchvision's model and load the checkpoint into it.

    Args:
        spec: of a checkpoint of the torchvision dialect.
        tensors: the checkpoint's tensors under torchvision's names.

    Returns:
        the model in eval mode; its input is a list of float32 [3, h, w] RGB from 0 to 1.

    Raises:
        SpecError: a field of the spec has a value that torchvision's model does not support.
    """
    _require_supported(spec)
    channels = _pyramid(spec).channels
    classes = spec.num_foreground + 1
    options: dict[str, Any] = {
        **_transform_options(spec),
        **_rpn_options(spec),
        "box_roi_pool": _pooler(spec.box.pooler, len(spec.body.outputs)),
        "box_head": _box_head(spec.box, channels),
        "box_predictor": FastRCNNPredictor(spec.box.fc_widths[-1], classes),
        "box_score_thresh": spec.box.score_threshold,
        "box_nms_thresh": spec.box.nms_iou,
        "box_detections_per_img": spec.box.detections,
        "bbox_reg_weights": spec.box.box_weights,
    }
    model = _with_heads(spec, _backbone(spec), options, classes)
    model.rpn.min_size = spec.rpn.min_size
    model.rpn.box_coder = BoxCoder(spec.rpn.box_weights, spec.rpn.max_log_ratio)
    model.roi_heads.box_coder = BoxCoder(spec.box.box_weights, spec.box.max_log_ratio)
    missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    missing = [n for n in missing if not n.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"not torchvision's names: missing {missing[:3]}, extra {unexpected[:3]}")
    model.eval().requires_grad_(False)
    return model


def _with_heads(
    spec: ModelSpec, backbone: BackboneWithFPN, options: dict[str, Any], classes: int
) -> GeneralizedRCNN:
    channels = _pyramid(spec).channels
    levels = len(spec.body.outputs)
    masks = {} if spec.mask is None else _mask_options(spec.mask, channels, classes, levels)
    keypoints = {} if spec.keypoint is None else _keypoint_options(spec.keypoint, channels, levels)
    model: GeneralizedRCNN
    if spec.keypoint is not None:
        model = KeypointRCNN(backbone, **options, **keypoints)
        # Its RoI heads support masks, its constructor does not.
        for name, part in masks.items():
            setattr(model.roi_heads, name, part)
    elif spec.mask is not None:
        model = MaskRCNN(backbone, **options, **masks)
    else:
        model = FasterRCNN(backbone, **options)
    return model


def _backbone(spec: ModelSpec) -> BackboneWithFPN:
    if isinstance(spec.body, ResNetSpec):
        build = resnet_body if has_blocks(spec.body) else ResNetBody
        body = build(spec.body, spec.preprocess.channels)
        returned = {f"layer{s + 1}": str(i) for i, s in enumerate(spec.body.outputs)}
        widths = [spec.body.channels[s] for s in spec.body.outputs]
    else:
        assert isinstance(spec.body, MobileNetV3Spec)
        body = mobilenet_body(spec.body, spec.preprocess.channels)
        returned = {str(block): str(i) for i, block in enumerate(spec.body.outputs)}
        widths = list(spec.body.channels)
    fpn = _pyramid(spec)
    norm = None if fpn.norm == "none" else norm_of(fpn.norm, fpn.norm_eps)
    backbone = BackboneWithFPN(
        body, returned, widths, fpn.channels, LastLevelMaxPool(), norm_layer=norm
    )
    if fpn.extra_level == "none":  # its constructor always adds one
        backbone.fpn.extra_blocks = None
    return backbone


def _require_supported(spec: ModelSpec) -> None:
    """Refuse a spec that torchvision's classes do not support: the reference would be wrong."""
    pre, anchors, rpn, box, mask = spec.preprocess, spec.anchors, spec.rpn, spec.box, spec.mask
    supported = {
        "preprocess.interpolation": pre.interpolation == "bilinear",
        "preprocess.resize_rule": pre.resize_rule == "torchvision",
        "preprocess.channel_order": pre.channel_order == "rgb",
        "preprocess.value_range": pre.value_range == 1.0,
        "fpn.fuse": spec.fpn is not None and spec.fpn.fuse == "sum",
        "anchors": (anchors.order, anchors.rounded, anchors.offset, anchors.stride_rule)
        == ("ratio-major", True, 0.0, "canvas"),
        "rpn": (rpn.min_size_inclusive, rpn.size_clamp) == (True, "upper"),
        "box": (box.class_agnostic, box.background, box.min_size, box.min_size_inclusive)
        == (False, "first", 1e-2, True),
        "mask": mask is None
        or (mask.class_agnostic, mask.paste, mask.threshold_inclusive) == (False, "integer", False),
        "keypoint.score": spec.keypoint is None or spec.keypoint.score == "logit",
        "pooler": not any(p.aligned or p.inner_eps for p in spec.poolers),
    }
    wrong = [field for field, is_supported in supported.items() if not is_supported]
    if wrong:
        raise SpecError(
            f"spec: '{wrong[0]}' has a value that torchvision's own model does not support, so "
            "there is no eager model to compare with; export with --no-check"
        )


def _pyramid(spec: ModelSpec) -> FpnSpec:
    if spec.fpn is None:
        raise SpecError(f"{spec.architecture}: expected a model with a pyramid, got one without")
    return spec.fpn


def _transform_options(spec: ModelSpec) -> dict[str, Any]:
    pre = spec.preprocess
    return {
        "min_size": pre.short_side,
        "max_size": pre.long_side,
        "image_mean": list(pre.mean),
        "image_std": list(pre.std),
        "size_divisible": pre.size_divisor,
        # torchvision takes the width first.
        "fixed_size": None if pre.fixed_hw is None else pre.fixed_hw[::-1],
    }


def _rpn_options(spec: ModelSpec) -> dict[str, Any]:
    anchors = AnchorGenerator(spec.anchors.sizes, spec.anchors.ratios)
    if spec.anchors.cells:
        anchors.cell_anchors = [torch.tensor(cell) for cell in spec.anchors.cells]
    return {
        "rpn_anchor_generator": anchors,
        "rpn_head": RPNHead(
            _pyramid(spec).channels, spec.anchors.per_cell, len(spec.rpn.conv_widths)
        ),
        "rpn_pre_nms_top_n_test": spec.rpn.pre_nms,
        "rpn_post_nms_top_n_test": spec.rpn.post_nms,
        "rpn_nms_thresh": spec.rpn.nms_iou,
        "rpn_score_thresh": spec.rpn.score_threshold,
    }


def _pooler(spec: PoolerSpec, pyramid: int) -> MultiScaleRoIAlign:
    """A pooler on levels of a pyramid with `pyramid` levels and perhaps an extra one."""
    names = ["pool" if i == pyramid else str(i) for i in spec.pooled_levels]
    pooler = MultiScaleRoIAlign(names, spec.output_size, spec.sampling_ratio)
    # torchvision derives the strides from the first photo and keeps them. A very flat photo gives
    # wrong strides for all later photos too; these are the strides of any other photo.
    pooler.scales = [1.0 / stride for stride in spec.strides]
    finest, coarsest = (int(math.log2(s)) for s in (spec.strides[0], spec.strides[-1]))
    pooler.map_levels = initLevelMapper(
        finest, coarsest, int(spec.canonical_size), spec.canonical_level, spec.outer_eps
    )
    return pooler


def _box_head(spec: BoxHeadSpec, channels: int) -> nn.Module:
    side = spec.pooler.output_size
    head: nn.Module = TwoMLPHead(channels * side * side, spec.fc_widths[0])
    if spec.conv_widths:
        head = FastRCNNConvFCHead(
            (channels, side, side),
            list(spec.conv_widths),
            list(spec.fc_widths),
            norm_layer=norm_of(spec.norm, spec.norm_eps),
        )
    return head


def _mask_options(spec: MaskHeadSpec, channels: int, classes: int, levels: int) -> dict[str, Any]:
    norm = None if spec.norm == "none" else norm_of(spec.norm, spec.norm_eps)
    inputs = spec.conv_widths[-1] if spec.conv_widths else channels
    return {
        "mask_roi_pool": _pooler(spec.pooler, levels),
        "mask_head": MaskRCNNHeads(
            channels, list(spec.conv_widths), spec.dilation, norm_layer=norm
        ),
        "mask_predictor": MaskRCNNPredictor(inputs, spec.deconv_width, classes),
    }


def _keypoint_options(spec: KeypointHeadSpec, channels: int, levels: int) -> dict[str, Any]:
    return {
        "keypoint_roi_pool": _pooler(spec.pooler, levels),
        "keypoint_head": KeypointRCNNHeads(channels, spec.conv_widths),
        "keypoint_predictor": KeypointRCNNPredictor(spec.conv_widths[-1], len(spec.names)),
    }
