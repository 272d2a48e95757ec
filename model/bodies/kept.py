"""A body that is the user's own module."""

from __future__ import annotations

from torch import Tensor, nn


class KeptBody(nn.Module):
    """The user's module, whose output is a map or a dictionary of maps, finest first."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map [N, channels, H, W] to one feature map per output."""
        maps = self.module(x)
        return [maps] if isinstance(maps, Tensor) else list(maps.values())
