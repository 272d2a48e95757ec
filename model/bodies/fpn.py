"""The feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation

from model.bodies.norm import norm_layer
from model.spec import FpnSpec


class FeaturePyramid(nn.Module):
    """Top-down pathway and lateral connections, with an optional coarser extra level.

    Names of the children are torchvision's.

    Source: Feature Pyramid Networks, sec. 3; torchvision `FeaturePyramidNetwork`, whose
    interpolation to the finer level's size equals detectron2's doubling if that size is even.
    """

    def __init__(self, channels: Sequence[int], spec: FpnSpec) -> None:
        super().__init__()
        norm, width = norm_layer(spec.norm, spec.norm_eps), spec.channels
        self.inner_blocks = nn.ModuleList(
            Conv2dNormActivation(c, width, 1, norm_layer=norm, activation_layer=None)
            for c in channels
        )
        self.layer_blocks = nn.ModuleList(
            Conv2dNormActivation(width, width, 3, norm_layer=norm, activation_layer=None)
            for _ in channels
        )
        self.has_extra_level = spec.extra_level == "pool"
        self.averages = spec.fuse == "average"

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map [N, C_l, H_l, W_l] per level, finest first, to [N, C, H_l, W_l]."""
        above = self.inner_blocks[-1](features[-1])
        levels = [self.layer_blocks[-1](above)]
        for level in range(len(features) - 2, -1, -1):
            lateral = self.inner_blocks[level](features[level])
            above = lateral + functional.interpolate(above, lateral.shape[-2:], mode="nearest")
            if self.averages:
                above = above / 2
            levels.insert(0, self.layer_blocks[level](above))
        if self.has_extra_level:
            levels.append(functional.max_pool2d(levels[-1], 1, 2, 0))
        return levels
