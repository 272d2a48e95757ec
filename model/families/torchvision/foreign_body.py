"""Names a body that cannot be rebuilt from its weights, by the names of torchvision's networks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import nn
from torchvision import models

_Pattern = frozenset[tuple[str, int]]
# The smallest network of each of torchvision's families.
_FAMILIES: Mapping[str, str] = {
    "ConvNeXt": "convnext_tiny",
    "DenseNet": "densenet121",
    "EfficientNet": "efficientnet_b0",
    "MaxViT": "maxvit_t",
    "MNASNet": "mnasnet0_5",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3": "mobilenet_v3_small",
    "RegNet": "regnet_y_400mf",
    "ResNet": "resnet18",
    "ResNet with bottlenecks": "resnet50",
    "ShuffleNetV2": "shufflenet_v2_x0_5",
    "SqueezeNet": "squeezenet1_0",
    "Swin Transformer": "swin_t",
    "Swin Transformer V2": "swin_v2_t",
    "Vision Transformer": "vit_b_32",
}
_MIN_SIMILARITY, _MIN_NAMES = 0.5, 3


def family_of(shapes: Mapping[str, Sequence[int]]) -> str | None:
    """The family whose names, without their numbers, are most like those of a body.

    Args:
        shapes: of the body's tensors, by names without the body's prefix.

    Returns:
        None if no family has most of the names.
    """
    own = _pattern(shapes)
    if len(own) < _MIN_NAMES:  # a plain chain of layers
        return None
    best, highest = None, _MIN_SIMILARITY
    for family, name in _FAMILIES.items():
        for names in _variants(name):
            similarity = len(own & names) / max(len(own | names), 1)
            if similarity > highest:
                best, highest = family, similarity
    return best


@cache
def _variants(name: str) -> tuple[_Pattern, ...]:
    """The names in a network, and of each of its parts: bodies are often `features` alone."""
    # RegNet computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network: nn.Module = models.get_model(name, weights=None)
    parts = (network, *network.children())
    return tuple(_pattern({n: t.shape for n, t in p.state_dict().items()}) for p in parts)


def _pattern(shapes: Mapping[str, Sequence[int]]) -> _Pattern:
    """Names of weights without numbers, and without the first part, which wrapping changes."""
    return frozenset(
        (re.sub(r"\d+", "", name.partition(".")[2]), len(shape))
        for name, shape in shapes.items()
        if len(shape) > 1
    )
