"""Heads that are the user's own modules, with the faces that torchvision's RoI heads need.

Legend: R rows, C classes with the background, P pooled side, M mask side, J keypoints, S side of a
heat map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class KeptParts:
    """The parts of a network that are the user's own modules; None for the spec's own layers.

    body maps images to a list of maps; the others have the faces of `RpnHead`, `BoxHead`,
    `MaskHead` and `KeypointHead`.
    """

    body: nn.Module | None = None
    rpn_head: nn.Module | None = None
    box_head: nn.Module | None = None
    mask_head: nn.Module | None = None
    keypoint_head: nn.Module | None = None


class KeptBoxHead(nn.Module):
    """The user's box head and predictor."""

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.head, self.predictor = head, predictor

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Map [R, channels, P, P] to logits [R, C] and deltas [R, 4 * C]."""
        logits, deltas = self.predictor(self.head(pooled))
        return logits, deltas


class KeptMaskHead(nn.Module):
    """The user's mask head and predictor; returns the channel of each row's class."""

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.head, self.predictor = head, predictor

    def forward(self, pooled: Tensor, channel: Tensor) -> Tensor:
        """Map [R, channels, P, P] and int64 [R] to probabilities, float32 [R, M, M]."""
        logits = self.predictor(self.head(pooled)).float()  # [R, C, M, M]
        flat = logits.flatten(2)
        index = channel[:, None, None].expand(-1, 1, flat.shape[2])
        of_class = torch.gather(flat, 1, index)
        return torch.sigmoid(of_class).reshape(-1, *logits.shape[2:])


class KeptKeypointHead(nn.Module):
    """The user's keypoint head and predictor."""

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.head, self.predictor = head, predictor

    def forward(self, pooled: Tensor) -> Tensor:
        """Map [R, channels, P, P] to logits, float32 [R, J, S, S]."""
        logits: Tensor = self.predictor(self.head(pooled)).float()
        return logits
