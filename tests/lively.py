"""Random weights that behave like trained ones: spread scores, varied boxes, real decisions.

A freshly initialised detector gives every anchor the same score. Here every BatchNorm is
calibrated on a picture, and every predictor is scaled until its outputs spread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

# Standard deviation that each predictor's output is brought to.
_SPREAD = {
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.25,
    "roi_heads.box_predictor.cls_score": 2.0,
    "roi_heads.box_predictor.bbox_pred": 0.7,
    "roi_heads.mask_predictor.mask_fcn_logits": 2.5,
}


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """A textured uint8 [height, width, 3] picture with blocks of colour in it."""
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
    """Calibrate a torchvision model in place and answer it in eval mode."""
    torch.manual_seed(seed)
    _spread_out_weights(model)
    image = torch.tensor(picture(240, 320, seed)).permute(2, 0, 1).float() / 255
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        images, _ = model.transform([image])
        features = model.backbone(images.tensors)
        for norm in norms:
            norm.eval()
        for name, spread in _SPREAD.items():
            module = dict(model.named_modules()).get(name)
            if module is not None:
                _scale(module, lambda: model([image]), spread)
    assert all(torch.isfinite(f).all() for f in features.values())
    return model


def _spread_out_weights(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.05)


def _scale(module: nn.Module, run: Callable[[], object], spread: float) -> None:
    """Scale a layer so that its output, in a run of the whole model, has this deviation."""
    outputs: list[Tensor] = []
    hook = module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    run()
    hook.remove()
    deviation = torch.cat([o.flatten() for o in outputs]).std()
    module.weight.mul_(spread / deviation)
    module.bias.zero_()
