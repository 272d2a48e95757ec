"""MMDetection's names for the network's tensors, and the conversion of version 1's tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from model.families.shapes import Parts, translate
from model.heads.box import linear_name
from model.spec import ModelSpec
from model.spec.body import NormKind

_PREFIXES = {
    "rpn.head.cls_logits.": "rpn_head.rpn_cls.",
    "rpn.head.bbox_pred.": "rpn_head.rpn_reg.",
    "box_head.cls_score.": "roi_head.bbox_head.fc_cls.",
    "box_head.bbox_pred.": "roi_head.bbox_head.fc_reg.",
    "mask_head.predictor.conv5_mask.": "roi_head.mask_head.upsample.",
    "mask_head.predictor.mask_fcn_logits.": "roi_head.mask_head.conv_logits.",
}
_OLD_HEADS = ("bbox_head.", "mask_head.")
_NORM_NAMES: dict[NormKind, str] = {"batch_norm": "bn", "group_norm": "gn", "none": "bn"}
_BATCH_NORM = re.compile(r"\bbn(\d)\.")


def is_version_1(names: Iterable[str]) -> bool:
    """Whether the names are of version 1, which had no `roi_head`."""
    return any(name.startswith(_OLD_HEADS) for name in names)


def as_version_2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert version 1's names and class order to version 2.

    Version 1 has the background first, with box and mask outputs that are never used.

    Source: MMDetection 2, `docs/compatibility.md` and `tools/upgrade_model_version.py`.
    """
    if not is_version_1(tensors):
        return dict(tensors)
    scores = tensors.get("bbox_head.fc_cls.weight")
    classes = 0 if scores is None else scores.shape[0]
    converted = {}
    for name, tensor in tensors.items():
        if name.startswith("bbox_head.fc_cls."):
            tensor = torch.cat([tensor[1:], tensor[:1]])
        elif name.startswith("bbox_head.fc_reg.") and tensor.shape[0] == 4 * classes:
            tensor = tensor[4:]
        elif name.startswith("mask_head.conv_logits.") and tensor.shape[0] == classes:
            tensor = tensor[1:]
        converted[f"roi_head.{name}" if name.startswith(_OLD_HEADS) else name] = tensor
    return converted


def original_name(name: str, spec: ModelSpec) -> str:
    """MMDetection's name for `MaskRCNN`'s tensor `name`."""
    return translate(name, spec, _PREFIXES, _PARTS)


def _body(name: str, spec: ModelSpec) -> str:
    norm = _NORM_NAMES[spec.body.norm]
    return "backbone." + _BATCH_NORM.sub(rf"{norm}\1.", name)


def _fpn(name: str, spec: ModelSpec) -> str:
    blocks, level, layer, leaf = name.split(".", 3)
    module = "lateral_convs" if blocks == "inner_blocks" else "fpn_convs"
    norm: NormKind = "none" if spec.fpn is None else spec.fpn.norm
    return f"neck.{module}.{level}.{_layer(layer, norm)}.{leaf}"


def _layer(layer: str, norm: NormKind) -> str:
    """A convolution is layer 0, the normalization after it layer 1."""
    return "conv" if layer == "0" else _NORM_NAMES[norm]


def _rpn(name: str, spec: ModelSpec) -> str:
    index, _, leaf = name.removeprefix("head.conv.").split(".", 2)
    has_several = len(spec.rpn.conv_widths) > 1
    return f"rpn_head.rpn_conv.{f'{index}.conv.' if has_several else ''}{leaf}"


def _box_head(name: str, spec: ModelSpec) -> str:
    layer, leaf = name.removeprefix("trunk.").split(".", 1)
    linear = [linear_name(spec.box, i) for i in range(len(spec.box.fc_widths))]
    if layer in linear:
        return f"roi_head.bbox_head.shared_fcs.{linear.index(layer)}.{leaf}"
    inner, leaf = leaf.split(".", 1)
    return f"roi_head.bbox_head.shared_convs.{layer}.{_layer(inner, spec.box.norm)}.{leaf}"


def _mask_head(name: str, spec: ModelSpec) -> str:
    index, layer, leaf = name.removeprefix("convs.").split(".", 2)
    norm: NormKind = "none" if spec.mask is None else spec.mask.norm
    return f"roi_head.mask_head.convs.{index}.{_layer(layer, norm)}.{leaf}"


_PARTS: Parts = {
    "body": _body,
    "fpn": _fpn,
    "rpn": _rpn,
    "box_head": _box_head,
    "mask_head": _mask_head,
}
