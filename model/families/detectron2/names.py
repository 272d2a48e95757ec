"""detectron2's names for the network's tensors."""

from __future__ import annotations

import re

from model.families.shapes import Parts, translate
from model.heads.box import linear_name
from model.spec import ModelSpec

_PREFIXES = {
    "rpn.head.cls_logits.": "proposal_generator.rpn_head.objectness_logits.",
    "rpn.head.bbox_pred.": "proposal_generator.rpn_head.anchor_deltas.",
    "box_head.cls_score.": "roi_heads.box_predictor.cls_score.",
    "box_head.bbox_pred.": "roi_heads.box_predictor.bbox_pred.",
    "mask_head.predictor.conv5_mask.": "roi_heads.mask_head.deconv.",
    "mask_head.predictor.mask_fcn_logits.": "roi_heads.mask_head.predictor.",
    "keypoint_head.kps_score_lowres.": "roi_heads.keypoint_head.score_lowres.",
}
_BLOCK = re.compile(r"(\d+)\.(conv|bn|downsample\.)(\d)\.(.+)")


def original_name(name: str, spec: ModelSpec) -> str:
    """detectron2's name for `MaskRCNN`'s tensor `name`."""
    return translate(name, spec, _PREFIXES, _PARTS)


def _body(name: str, spec: ModelSpec) -> str:
    prefix = "backbone." if spec.fpn is None else "backbone.bottom_up."
    if name.startswith("conv1."):
        return f"{prefix}stem.{name}"
    if name.startswith("bn1."):
        return f"{prefix}stem.conv1.norm.{name.removeprefix('bn1.')}"
    stage, _, suffix = name.removeprefix("layer").partition(".")
    return f"{prefix}res{int(stage) + 1}.{_block(suffix)}"


def _block(name: str) -> str:
    """The name of `0.conv1.weight`, `0.bn1.bias` or `0.downsample.1.bias` of a stage."""
    match = _BLOCK.fullmatch(name)
    assert match is not None, name
    block, layer, index, leaf = match.groups()
    if layer == "downsample.":
        return f"{block}.shortcut.{leaf}" if index == "0" else f"{block}.shortcut.norm.{leaf}"
    norm = "norm." if layer == "bn" else ""
    return f"{block}.conv{index}.{norm}{leaf}"


def _roi_stage(name: str, spec: ModelSpec) -> str:
    return f"roi_heads.res5.{_block(name)}"


def _fpn(name: str, spec: ModelSpec) -> str:
    blocks, level, layer, leaf = name.split(".", 3)
    module = "lateral" if blocks == "inner_blocks" else "output"
    stage = spec.body.outputs[int(level)] + 2
    return f"backbone.fpn_{module}{stage}.{_conv_or_norm(layer, leaf)}"


def _conv_or_norm(layer: str, leaf: str) -> str:
    """A convolution is layer 0, the normalization after it layer 1."""
    return leaf if layer == "0" else f"norm.{leaf}"


def _rpn(name: str, spec: ModelSpec) -> str:
    index, _, leaf = name.removeprefix("head.conv.").split(".", 2)
    has_several = len(spec.rpn.conv_widths) > 1
    return f"proposal_generator.rpn_head.conv.{f'conv{index}.' if has_several else ''}{leaf}"


def _box_head(name: str, spec: ModelSpec) -> str:
    layer, leaf = name.removeprefix("trunk.").split(".", 1)
    linear = [linear_name(spec.box, i) for i in range(len(spec.box.fc_widths))]
    if layer in linear:
        return f"roi_heads.box_head.fc{linear.index(layer) + 1}.{leaf}"
    return f"roi_heads.box_head.conv{int(layer) + 1}.{_conv_or_norm(*leaf.split('.', 1))}"


def _mask_head(name: str, spec: ModelSpec) -> str:
    index, layer, leaf = name.removeprefix("convs.").split(".", 2)
    return f"roi_heads.mask_head.mask_fcn{int(index) + 1}.{_conv_or_norm(layer, leaf)}"


def _keypoint_head(name: str, spec: ModelSpec) -> str:
    # torchvision's sequence alternates convolutions and ReLUs.
    index, leaf = name.removeprefix("convs.").split(".", 1)
    return f"roi_heads.keypoint_head.conv_fcn{int(index) // 2 + 1}.{leaf}"


_PARTS: Parts = {
    "body": _body,
    "fpn": _fpn,
    "roi_stage": _roi_stage,
    "rpn": _rpn,
    "box_head": _box_head,
    "mask_head": _mask_head,
    "keypoint_head": _keypoint_head,
}
