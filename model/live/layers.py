"""Whether the layers of two modules are the same, by type and values."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import Conv2dNormActivation, FrozenBatchNorm2d
from torchvision.ops.misc import SqueezeExcitation

from model.spec.body import NormKind

BLOCKS = (BasicBlock, Bottleneck, InvertedResidual, Conv2dNormActivation, SqueezeExcitation)
CONTAINERS = (nn.Sequential, nn.ModuleDict, nn.ModuleList)
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
_INACTIVE = (nn.Dropout, nn.Dropout2d)  # in eval mode
_INPLACE = re.compile(r",? ?inplace=(True|False)")


def same_layers(theirs: nn.Module, ours: nn.Module) -> bool:
    """Whether both have equal layers of equal tensors under the same names."""
    layers = (dict(_signatures(module, True)) for module in (theirs, ours))
    return next(layers) == next(layers) and _names(theirs) == _names(ours)


def same_weighted_layers(theirs: nn.Module, ours: nn.Module) -> bool:
    """As `same_layers`, but only for layers with tensors, whose names may differ."""
    mine = [s for _, s in _signatures(ours, False)]
    return [s for _, s in _signatures(theirs, False)] == mine


def same_sequence(theirs: nn.Module, ours: nn.Module) -> bool:
    """Whether both have equal layers in order, whatever their names."""
    mine = [s for _, s in _signatures(ours, True)]
    return [s for _, s in _signatures(theirs, True)] == mine


def _names(module: nn.Module) -> set[str]:
    return {n for n in module.state_dict() if not n.endswith("num_batches_tracked")}


def _signatures(module: nn.Module, with_plain: bool) -> list[tuple[str, str]]:
    """Name and signature of each layer that has no children; `with_plain` also without tensors."""
    return [
        (name, signature(layer))
        for name, layer in module.named_modules()
        if not list(layer.children())
        and not isinstance(layer, _INACTIVE)
        and (with_plain or layer.state_dict())
    ]


def signature(layer: Any) -> str:
    """Type and settings of a layer, as far as they decide its result in eval mode."""
    if type(layer) is FrozenBatchNorm2d:
        return f"BatchNorm2d({layer.weight.shape[0]}, {layer.eps!r})"
    if type(layer) in _BATCH_NORMS and layer.affine and layer.track_running_stats:
        return f"BatchNorm2d({layer.num_features}, {layer.eps!r})"
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    return f"{name}({_INPLACE.sub('', layer.extra_repr())})"


def norm_of(module: nn.Module) -> tuple[NormKind, float]:
    """Kind and epsilon of the first normalization; same_layers compares all of them."""
    layer: Any
    for layer in module.modules():
        if isinstance(layer, nn.GroupNorm):
            return "group_norm", layer.eps
        if hasattr(layer, "eps") and hasattr(layer, "running_mean"):
            return "batch_norm", float(layer.eps)
    return "none", 1e-5


def is_ordinary(module: nn.Module) -> bool:
    """Whether every container inside runs its children as torchvision's blocks do."""
    for part in module.modules():
        if "forward" in vars(part):
            return False
        if type(part) is IntermediateLayerGetter or not list(part.children()):
            continue
        base = next((b for b in (*BLOCKS, *CONTAINERS) if isinstance(part, b)), None)
        if base is None or type(part).forward is not base.forward:
            return False
    return True
