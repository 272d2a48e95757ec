"""Whether the layers of two modules are the same, by type and values."""

from __future__ import annotations

import re

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

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


def signature(layer: nn.Module) -> str:
    """Type and settings of a layer, as far as they decide its result in eval mode."""
    if type(layer) is FrozenBatchNorm2d:
        return f"BatchNorm2d({layer.weight.shape[0]}, {layer.eps!r})"
    if type(layer) in _BATCH_NORMS and layer.affine and layer.track_running_stats:
        return f"BatchNorm2d({layer.num_features}, {layer.eps!r})"
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    return f"{name}({_INPLACE.sub('', layer.extra_repr())})"
