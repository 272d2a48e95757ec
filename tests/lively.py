"""Random weights that behave like trained ones: spread scores, varied boxes, real decisions.

A freshly initialized detector gives every anchor the same score. Here every BatchNorm is
calibrated on a picture, and every predictor is scaled until its outputs spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.mobilenetv3 import InvertedResidual

from model.bodies.resnet import BasicBlock, Bottleneck
from model.mask_rcnn import MaskRCNN

# Standard deviation that each predictor's output is brought to.
_SPREAD = (
    {"rpn.head.cls_logits": 2.0, "rpn.head.bbox_pred": 0.25},
    {"roi_heads.box_predictor.cls_score": 1.5, "roi_heads.box_predictor.bbox_pred": 0.7},
    {
        "roi_heads.mask_predictor.mask_fcn_logits": 2.5,
        "roi_heads.keypoint_predictor.kps_score_lowres": 2.5,
    },
)
# A stride of 32 leaves 35 cells of each; a BatchNorm needs more than those of one.
_CALIBRATION_PICTURES = 6
_RESIDUAL_WEIGHT = 0.15


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """A textured uint8 [height, width, 3] picture with blocks of color in it."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (height // 24 + 2, width // 24 + 2, 3))
    image = np.kron(coarse, np.ones((24, 24, 1)))[:height, :width]
    for _ in range(12):
        y, x = rng.integers(0, height), rng.integers(0, width)
        h, w = rng.integers(8, 1 + max(9, height // 2)), rng.integers(8, 1 + max(9, width // 2))
        image[y : y + h, x : x + w] = rng.uniform(0, 255, 3)
    noise = rng.normal(0, 12, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def enliven(model: GeneralizedRCNN, seed: int) -> GeneralizedRCNN:
    """Calibrate a torchvision model in place and return it in eval mode."""
    torch.manual_seed(seed)
    _spread_out_weights(model)
    images = [
        torch.tensor(picture(150, 200, seed + i)).permute(2, 0, 1).float() / 255
        for i in range(_CALIBRATION_PICTURES)
    ]
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        batch, _ = model.transform(images)
        features = model.backbone(batch.tensors)
        for norm in norms:
            norm.eval()
        modules = dict(model.named_modules())
        for stage in _SPREAD:
            scaled = {modules[n]: spread for n, spread in stage.items() if n in modules}
            _scale(scaled, lambda: model(images[:2]))
    assert all(torch.isfinite(f).all() for f in features.values())
    return model


def _spread_out_weights(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, resnet.BasicBlock | resnet.Bottleneck):
            # Trained blocks refine their input; branches at full strength make a deep random
            # network chaotic, and rounding grows a thousandfold on the way.
            last = module.bn3 if isinstance(module, resnet.Bottleneck) else module.bn2
            nn.init.constant_(last.weight, _RESIDUAL_WEIGHT)
        if isinstance(module, InvertedResidual) and module.use_res_connect:
            nn.init.constant_(module.block[-1][1].weight, _RESIDUAL_WEIGHT)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.05)


def _scale(spread_of: Mapping[nn.Module, float], run: Callable[[], object]) -> None:
    """Scale layers so that their outputs, in a run of the whole model, have these deviations."""
    outputs: dict[nn.Module, list[Tensor]] = {module: [] for module in spread_of}
    hooks = [
        module.register_forward_hook(lambda m, _i, output: outputs[m].append(output))
        for module in spread_of
    ]
    run()
    for hook in hooks:
        hook.remove()
    for module, spread in spread_of.items():
        deviation = torch.cat([o.flatten() for o in outputs[module]]).std()
        module.weight.mul_(spread / deviation)
        module.bias.zero_()


# Of our own network, by its names.
_NETWORK_SPREAD = {
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.25,
    "box_head.cls_score": 1.5,
    "box_head.bbox_pred": 0.7,
    "mask_head.predictor.mask_fcn_logits": 2.5,
    "keypoint_head.kps_score_lowres": 3.0,
}


@torch.no_grad()
def enliven_network(model: MaskRCNN, images: Tensor, seed: int = 1) -> MaskRCNN:
    """Calibrate our own network, of any dialect, in place.

    Args:
        model: in eval mode.
        images: float32 [N, 3, H, W] in the spec's value range.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.05)
        if isinstance(module, BasicBlock | Bottleneck):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
            if not isinstance(last, nn.Identity):
                nn.init.constant_(last.weight, _RESIDUAL_WEIGHT)
    image_hw = torch.tensor([images.shape[2:]] * len(images), dtype=torch.float32)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(images, image_hw)
    model.eval()
    modules = dict(model.named_modules())
    for name, spread in _NETWORK_SPREAD.items():
        if name in modules:
            _center(modules[name], spread, name, lambda: model(images[:1], image_hw[:1]))
    return model


def _center(layer: nn.Module, spread: float, name: str, run: Callable[[], object]) -> None:
    """Scale a predictor and take out its channels' means, or one class would win everywhere."""
    if "mask" in name:  # its convolution is not run as one: see `MaskHead`
        layer.weight.mul_(spread / layer.weight.std() / 12)
        return
    recorded: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _m, _i, out: recorded.append(out))
    run()
    hook.remove()
    rows = torch.cat([s.movedim(1, -1).reshape(-1, s.shape[1]) for s in recorded])
    rows = rows - layer.bias
    scale = spread / (rows - rows.mean(dim=0)).std()
    layer.weight.mul_(scale)
    layer.bias.copy_(-scale * rows.mean(dim=0))
