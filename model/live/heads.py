"""The heads of a live model.

A head becomes ours if its class is torchvision's and our layers of the spec equal it in every type
and value. Any other head is kept as the user's module, if it returns what torchvision's would.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from model.errors import MaskportError
from model.families.coco import keypoints as keypoint_names
from model.heads.box import BoxHead
from model.heads.kept import KeptBoxHead, KeptKeypointHead, KeptMaskHead
from model.heads.keypoint import KeypointHead
from model.heads.mask import MaskHead
from model.heads.rpn import RpnHead
from model.live.faces import (
    class_name,
    is_plain,
    require_box_outputs,
    require_maps,
    run_part,
)
from model.live.layers import (
    is_ordinary,
    norm_of,
    same_layers,
    same_sequence,
    same_weighted_layers,
)
from model.spec import BoxHeadSpec, KeypointHeadSpec, MaskHeadSpec, PoolerSpec, RpnSpec


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept modules, and their paths in the live model."""

    modules: dict[str, nn.Module] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)


def read_rpn_head(head: Any, spec: RpnSpec, channels: int, per_cell: int, kept: Kept) -> RpnSpec:
    """The head's fields of the spec; keeps a head that is not ours."""
    if is_plain(head, RPNHead) and isinstance(head.conv, nn.Sequential):
        widths = (0,) * len(head.conv)
        try:
            with torch.device("meta"):
                ours = RpnHead(channels, widths, per_cell)
        except (ValueError, RuntimeError):
            ours = None
        if ours is not None and widths and is_ordinary(head.conv) and same_layers(head, ours):
            return replace(spec, conv_widths=widths)
    kept.modules["rpn_head"] = head
    kept.paths.append("rpn.head")
    return replace(spec, module=class_name(head))


def read_box_head(
    heads: Any, spec: BoxHeadSpec, channels: int, classes: int, kept: Kept
) -> BoxHeadSpec:
    """The head's fields of the spec; keeps head and predictor if one of them is not ours."""
    head, predictor = heads.box_head, heads.box_predictor
    own = _own_box_head(head, spec, channels, classes)
    if own is not None and is_plain(predictor, FastRCNNPredictor):
        with torch.device("meta"):
            ours = BoxHead(channels, spec.pooler.output_size, own, classes - 1, mean=False)
        pairs = [(predictor.cls_score, ours.cls_score), (predictor.bbox_pred, ours.bbox_pred)]
        if all(same_layers(theirs, mine) for theirs, mine in pairs):
            return own
    kept.modules["box_head"] = KeptBoxHead(head, predictor)
    kept.paths.append("roi_heads.box_head, box_predictor")
    names = f"{class_name(head)}, {class_name(predictor)}"
    return replace(spec, conv_widths=(), fc_widths=(), module=names)


def _own_box_head(head: Any, spec: BoxHeadSpec, channels: int, classes: int) -> BoxHeadSpec | None:
    try:
        if is_plain(head, TwoMLPHead):
            own = replace(spec, fc_widths=(int(head.fc6.out_features), int(head.fc7.out_features)))
        elif is_plain(head, FastRCNNConvFCHead) and is_ordinary(head):
            norm, eps = norm_of(head)
            convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
            linear = [m for m in head.children() if isinstance(m, nn.Linear)]
            own = replace(
                spec,
                conv_widths=tuple(int(c.out_channels) for c in convs),
                fc_widths=tuple(int(m.out_features) for m in linear),
                norm=norm,
                norm_eps=eps,
            )
        else:
            return None
        with torch.device("meta"):
            ours = BoxHead(channels, spec.pooler.output_size, own, classes - 1, mean=False)
    except (MaskportError, AttributeError, ValueError, RuntimeError):
        return None
    is_mlp = isinstance(head, TwoMLPHead)  # its ReLUs are no layers
    equal = same_weighted_layers if is_mlp else same_sequence
    return own if equal(head, ours.trunk) else None


def count_classes(heads: Any, channels: int, pooler: PoolerSpec) -> int:
    """Number of classes with the background, by running the box head on two boxes.

    Raises:
        ModelError: the head fails or returns something else than scores and deltas.
    """
    pooled = torch.zeros(2, channels, pooler.output_size, pooler.output_size)
    features = run_part("roi_heads.box_head", heads.box_head, pooled)
    output = run_part("roi_heads.box_predictor", heads.box_predictor, features)
    return require_box_outputs(output, 2, "roi_heads.box_predictor", heads.box_predictor)


def read_mask_head(
    heads: Any, pooler: PoolerSpec, channels: int, classes: int, kept: Kept
) -> MaskHeadSpec:
    """The mask head; keeps head and predictor if one of them is not ours.

    Raises:
        ModelError: a part returns something else than square logits of every class.
    """
    head, predictor = heads.mask_head, heads.mask_predictor
    pooled = torch.zeros(2, channels, pooler.output_size, pooler.output_size)
    hidden = run_part("roi_heads.mask_head", head, pooled)
    output = run_part("roi_heads.mask_predictor", predictor, hidden)
    _, side = require_maps(output, 2, classes, "roi_heads.mask_predictor", predictor)
    own = _own_mask_head(head, predictor, pooler, channels, classes)
    if own is not None:
        return own
    kept.modules["mask_head"] = KeptMaskHead(head, predictor)
    kept.paths.append("roi_heads.mask_head, mask_predictor")
    names = f"{class_name(head)}, {class_name(predictor)}"
    return MaskHeadSpec(pooler, (), map_side=side, module=names)


def _own_mask_head(
    head: Any, predictor: Any, pooler: PoolerSpec, channels: int, classes: int
) -> MaskHeadSpec | None:
    is_own = is_plain(head, MaskRCNNHeads) and is_plain(predictor, MaskRCNNPredictor)
    if not is_own or not is_ordinary(head) or not _has_order(predictor):
        return None
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    norm, eps = norm_of(head)
    try:
        spec = MaskHeadSpec(
            pooler=pooler,
            conv_widths=tuple(int(c.out_channels) for c in convs),
            deconv_width=int(predictor.conv5_mask.out_channels),
            norm=norm,
            norm_eps=eps,
            dilation=int(convs[0].dilation[0]) if convs else 1,
        )
        with torch.device("meta"):
            ours = MaskHead(channels, spec, classes)
    except (MaskportError, AttributeError, ValueError, RuntimeError):
        return None
    same = same_layers(head, ours.convs) and same_layers(predictor, ours.predictor)
    return spec if same else None


def _has_order(predictor: nn.Module) -> bool:
    """Whether the layers are those of torchvision's constructor, in its order."""
    return [n for n, _ in predictor.named_children()] == ["conv5_mask", "relu", "mask_fcn_logits"]


def read_keypoint_head(
    heads: Any, pooler: PoolerSpec, channels: int, kept: Kept
) -> KeypointHeadSpec:
    """The keypoint head; keeps head and predictor if one of them is not ours.

    Raises:
        ModelError: a part returns something else than square logits.
    """
    head, predictor = heads.keypoint_head, heads.keypoint_predictor
    pooled = torch.zeros(2, channels, pooler.output_size, pooler.output_size)
    hidden = run_part("roi_heads.keypoint_head", head, pooled)
    output = run_part("roi_heads.keypoint_predictor", predictor, hidden)
    count, side = require_maps(output, 2, None, "roi_heads.keypoint_predictor", predictor)
    names = keypoint_names(count)
    if is_plain(head, KeypointRCNNHeads) and is_plain(predictor, KeypointRCNNPredictor):
        convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
        try:
            spec = KeypointHeadSpec(pooler, tuple(int(c.out_channels) for c in convs), names)
            with torch.device("meta"):
                ours = KeypointHead(channels, spec)
        except (MaskportError, ValueError, RuntimeError):
            ours = None
        if (
            ours is not None
            and predictor.up_scale == 2
            and same_layers(head, ours.convs)
            and same_layers(predictor.kps_score_lowres, ours.kps_score_lowres)
        ):
            return spec
    kept.modules["keypoint_head"] = KeptKeypointHead(head, predictor)
    kept.paths.append("roi_heads.keypoint_head, keypoint_predictor")
    module = f"{class_name(head)}, {class_name(predictor)}"
    return KeypointHeadSpec(pooler, names=names, map_side=side, module=module)
