"""The convolutions of the region proposal network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation


class RpnHead(nn.Module):
    """3x3 convolutions, then an objectness logit and four deltas per anchor.

    Names of the children are torchvision's.

    Source: Faster R-CNN, sec. 3.1; torchvision `RPNHead`; detectron2 `StandardRPNHead`, whose
    convolutions may have any width.
    """

    def __init__(self, channels: int, widths: Sequence[int], per_cell: int) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        for width in widths:
            outputs = width or channels
            convs.append(Conv2dNormActivation(channels, outputs, 3, norm_layer=None))
            channels = outputs
        self.conv = nn.Sequential(*convs)
        self.cls_logits = nn.Conv2d(channels, per_cell, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * per_cell, 1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map [N, C, H_l, W_l] per level to logits [N, A, H_l, W_l] and deltas [N, 4A, …]."""
        hidden = [self.conv(feature) for feature in features]
        return [self.cls_logits(h) for h in hidden], [self.bbox_pred(h) for h in hidden]
