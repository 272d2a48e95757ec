"""detectron2's names of the network's tensors."""

from __future__ import annotations

import re

from model.heads.box import linear_name
from model.spec import ModelSpec

_BLOCK = re.compile(r"(\d+)\.(conv|bn|downsample\.)(\d)\.(.+)")


def original_name(name: str, spec: ModelSpec) -> str:
    """detectron2's name for `MaskRCNN`'s tensor `name`."""
    part, _, rest = name.partition(".")
    translate = {
        "body": _body,
        "fpn": _fpn,
        "roi_stage": _roi_stage,
        "rpn": _rpn,
        "box_head": _box_head,
        "mask_head": _mask_head,
        "keypoint_head": _keypoint_head,
    }[part]
    return translate(rest, spec)


def _body(name: str, spec: ModelSpec) -> str:
    prefix = "backbone." if spec.fpn is None else "backbone.bottom_up."
    if name.startswith("conv1."):
        return f"{prefix}stem.{name}"
    if name.startswith("bn1."):
        return f"{prefix}stem.conv1.norm.{name.removeprefix('bn1.')}"
    stage, _, rest = name.removeprefix("layer").partition(".")
    return f"{prefix}res{int(stage) + 1}.{_block(rest)}"


def _block(name: str) -> str:
    """`0.conv1.weight`, `0.bn1.bias`, `0.downsample.1.bias` of a block."""
    match = _BLOCK.fullmatch(name)
    assert match is not None, name
    block, kind, index, leaf = match.groups()
    if kind == "downsample.":
        return f"{block}.shortcut.{leaf}" if index == "0" else f"{block}.shortcut.norm.{leaf}"
    norm = "norm." if kind == "bn" else ""
    return f"{block}.conv{index}.{norm}{leaf}"


def _roi_stage(name: str, spec: ModelSpec) -> str:
    return f"roi_heads.res5.{_block(name)}"


def _fpn(name: str, spec: ModelSpec) -> str:
    kind, level, layer, leaf = name.split(".", 3)
    what = "lateral" if kind == "inner_blocks" else "output"
    stage = spec.body.outputs[int(level)] + 2
    return f"backbone.fpn_{what}{stage}.{_normed(layer, leaf)}"


def _normed(layer: str, leaf: str) -> str:
    """A convolution is layer 0, the normalisation after it layer 1."""
    return leaf if layer == "0" else f"norm.{leaf}"


def _rpn(name: str, spec: ModelSpec) -> str:
    name = name.removeprefix("head.")
    for ours, theirs in (("cls_logits", "objectness_logits"), ("bbox_pred", "anchor_deltas")):
        if name.startswith(ours):
            return f"proposal_generator.rpn_head.{theirs}.{name.removeprefix(f'{ours}.')}"
    index, _, leaf = name.removeprefix("conv.").split(".", 2)
    several = len(spec.rpn.conv_widths) > 1
    return f"proposal_generator.rpn_head.conv.{f'conv{index}.' if several else ''}{leaf}"


def _box_head(name: str, spec: ModelSpec) -> str:
    if not name.startswith("trunk."):
        return f"roi_heads.box_predictor.{name}"
    layer, leaf = name.removeprefix("trunk.").split(".", 1)
    linear = [linear_name(spec.box, i) for i in range(len(spec.box.fc_widths))]
    if layer in linear:
        return f"roi_heads.box_head.fc{linear.index(layer) + 1}.{leaf}"
    return f"roi_heads.box_head.conv{int(layer) + 1}.{_normed(*leaf.split('.', 1))}"


def _mask_head(name: str, spec: ModelSpec) -> str:
    for ours, theirs in (("conv5_mask", "deconv"), ("mask_fcn_logits", "predictor")):
        if name.startswith(f"predictor.{ours}."):
            return f"roi_heads.mask_head.{theirs}.{name.rsplit('.', 1)[1]}"
    index, layer, leaf = name.removeprefix("convs.").split(".", 2)
    return f"roi_heads.mask_head.mask_fcn{int(index) + 1}.{_normed(layer, leaf)}"


def _keypoint_head(name: str, spec: ModelSpec) -> str:
    if name.startswith("kps_score_lowres."):
        return f"roi_heads.keypoint_head.score_lowres.{name.removeprefix('kps_score_lowres.')}"
    # torchvision's convolutions and their ReLUs take turns.
    index, leaf = name.removeprefix("convs.").split(".", 1)
    return f"roi_heads.keypoint_head.conv_fcn{int(index) // 2 + 1}.{leaf}"
