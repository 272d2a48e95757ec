"""MMDetection's names of the network's tensors, and what its version 1 did otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from model.heads.box import linear_name
from model.spec import ModelSpec
from model.spec.body import NormKind

_OLD_HEADS = ("bbox_head.", "mask_head.")
_NORM_NAMES: dict[NormKind, str] = {"batch_norm": "bn", "group_norm": "gn", "none": "bn"}
_NORMED = re.compile(r"\bbn(\d)\.")


def is_old(names: Iterable[str]) -> bool:
    """Whether the names are of version 1, which had no `roi_head`."""
    return any(name.startswith(_OLD_HEADS) for name in names)


def modernised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Version 1's names and order to those of version 2.

    Version 1 put the background first, and kept boxes and masks for it that nothing reads.

    Source: MMDetection 2, `docs/compatibility.md` and `tools/upgrade_model_version.py`.
    """
    if not is_old(tensors):
        return dict(tensors)
    scores = tensors.get("bbox_head.fc_cls.weight")
    classes = 0 if scores is None else scores.shape[0]
    modern = {}
    for name, tensor in tensors.items():
        if name.startswith("bbox_head.fc_cls."):
            tensor = torch.cat([tensor[1:], tensor[:1]])
        elif name.startswith("bbox_head.fc_reg.") and tensor.shape[0] == 4 * classes:
            tensor = tensor[4:]
        elif name.startswith("mask_head.conv_logits.") and tensor.shape[0] == classes:
            tensor = tensor[1:]
        modern[f"roi_head.{name}" if name.startswith(_OLD_HEADS) else name] = tensor
    return modern


def original_name(name: str, spec: ModelSpec) -> str:
    """MMDetection's name for `MaskRCNN`'s tensor `name`."""
    part, _, rest = name.partition(".")
    translate = {
        "body": _body,
        "fpn": _fpn,
        "rpn": _rpn,
        "box_head": _box_head,
        "mask_head": _mask_head,
    }.get(part)
    return name if translate is None else translate(rest, spec)


def _body(name: str, spec: ModelSpec) -> str:
    norm = _NORM_NAMES[spec.body.norm]
    return "backbone." + _NORMED.sub(rf"{norm}\1.", name)


def _fpn(name: str, spec: ModelSpec) -> str:
    kind, level, layer, leaf = name.split(".", 3)
    what = "lateral_convs" if kind == "inner_blocks" else "fpn_convs"
    norm: NormKind = "none" if spec.fpn is None else spec.fpn.norm
    return f"neck.{what}.{level}.{_layer(layer, norm)}.{leaf}"


def _layer(layer: str, norm: NormKind) -> str:
    """A convolution is layer 0, the normalisation after it layer 1."""
    return "conv" if layer == "0" else _NORM_NAMES[norm]


def _rpn(name: str, spec: ModelSpec) -> str:
    name = name.removeprefix("head.")
    for ours, theirs in (("cls_logits", "rpn_cls"), ("bbox_pred", "rpn_reg")):
        if name.startswith(ours):
            return f"rpn_head.{theirs}.{name.removeprefix(f'{ours}.')}"
    index, _, leaf = name.removeprefix("conv.").split(".", 2)
    several = len(spec.rpn.conv_widths) > 1
    return f"rpn_head.rpn_conv.{f'{index}.conv.' if several else ''}{leaf}"


def _box_head(name: str, spec: ModelSpec) -> str:
    for ours, theirs in (("cls_score", "fc_cls"), ("bbox_pred", "fc_reg")):
        if name.startswith(f"{ours}."):
            return f"roi_head.bbox_head.{theirs}.{name.removeprefix(f'{ours}.')}"
    layer, leaf = name.removeprefix("trunk.").split(".", 1)
    linear = [linear_name(spec.box, i) for i in range(len(spec.box.fc_widths))]
    if layer in linear:
        return f"roi_head.bbox_head.shared_fcs.{linear.index(layer)}.{leaf}"
    inner, leaf = leaf.split(".", 1)
    return f"roi_head.bbox_head.shared_convs.{layer}.{_layer(inner, spec.box.norm)}.{leaf}"


def _mask_head(name: str, spec: ModelSpec) -> str:
    for ours, theirs in (("conv5_mask", "upsample"), ("mask_fcn_logits", "conv_logits")):
        if name.startswith(f"predictor.{ours}."):
            return f"roi_head.mask_head.{theirs}.{name.rsplit('.', 1)[1]}"
    index, layer, leaf = name.removeprefix("convs.").split(".", 2)
    norm: NormKind = "none" if spec.mask is None else spec.mask.norm
    return f"roi_head.mask_head.convs.{index}.{_layer(layer, norm)}.{leaf}"
