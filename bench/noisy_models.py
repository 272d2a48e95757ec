"""Random weights that amplify rounding: correct files of them are beyond a quiet model's limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    MaskRCNN,
    fasterrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

_SIDES = {"weights": None, "weights_backbone": None, "min_size": 320, "max_size": 533}


def _v2() -> GeneralizedRCNN:
    model: GeneralizedRCNN = maskrcnn_resnet50_fpn_v2(num_classes=7, **_SIDES)
    return model


def _boxes() -> GeneralizedRCNN:
    model: GeneralizedRCNN = fasterrcnn_resnet50_fpn(num_classes=5, **_SIDES)
    return model


def _r34() -> GeneralizedRCNN:
    body = resnet_fpn_backbone(backbone_name="resnet34", weights=None, norm_layer=nn.BatchNorm2d)
    return MaskRCNN(body, 12)


# Builder, and whether its weights take the statistics of two photos.
NOISY: dict[str, tuple[Callable[[], GeneralizedRCNN], bool]] = {
    "v2, 6 classes": (_v2, True),
    "boxes, 4 classes": (_boxes, True),
    "R34 as initialized, 11 classes": (_r34, False),
}


def write(name: str, path: Path, photos: list[Tensor]) -> None:
    """Write the weights of one of `NOISY`.

    Args:
        name: of the model.
        path: a `.pth`.
        photos: two photos, float32 [3, h, w] from 0 to 1.
    """
    build, is_adapted = NOISY[name]
    torch.manual_seed(7)
    model = build().eval()
    if is_adapted:
        adapt(model, photos)
    torch.save(model.state_dict(), path)


@torch.no_grad()
def adapt(model: GeneralizedRCNN, photos: list[Tensor]) -> None:
    """Give every BatchNorm the statistics of the photos, and scale the heads until they detect."""
    heads = model.roi_heads
    images, _ = model.transform(photos)
    _with_fresh_statistics([model.backbone], lambda: model.backbone(images.tensors))
    logits, deltas = model.rpn.head(list(model.backbone(images.tensors).values()))
    model.rpn.head.cls_logits.weight.mul_(2 / torch.cat([x.flatten() for x in logits]).std())
    model.rpn.head.bbox_pred.weight.mul_(0.4 / torch.cat([x.flatten() for x in deltas]).std())
    parts = [head for head in (heads.box_head, heads.mask_head) if head is not None]
    _with_fresh_statistics(parts, lambda: model(photos))
    outputs: list[tuple[Tensor, Tensor]] = []
    predictor = heads.box_predictor
    hook = predictor.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    model(photos)
    hook.remove()
    scores, boxes = outputs[-1]
    gain = 1.6 / scores.std(0)
    predictor.cls_score.bias.copy_((predictor.cls_score.bias - scores.mean(0)) * gain)
    predictor.cls_score.weight.mul_(gain[:, None])
    predictor.bbox_pred.weight.mul_(1 / boxes.std())


def _with_fresh_statistics(parts: list[nn.Module], run: Callable[[], object]) -> None:
    norms = [m for part in parts for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    run()
    for norm in norms:
        norm.eval()
