"""The mask head: a small fully convolutional network per detection.

Legend: N images, D detections, M mask side.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from model.spec import MaskHeadSpec


class MaskHead(nn.Module):
    """Probabilities of the predicted class alone; classes do not compete.

    Source: Mask R-CNN, sec. 3 and fig. 4; torchvision `MaskRCNNHeads`, `MaskRCNNPredictor`.
    """

    def __init__(self, channels: int, spec: MaskHeadSpec, num_outputs: int) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=spec.norm_eps) if spec.norm == "batch_norm" else None
        self.class_agnostic = spec.class_agnostic
        self.convs = MaskRCNNHeads(channels, list(spec.conv_widths), 1, norm_layer=norm)
        inputs = spec.conv_widths[-1] if spec.conv_widths else channels
        self.predictor = MaskRCNNPredictor(inputs, spec.deconv_width, num_outputs)

    def forward(self, pooled: Tensor, channel: Tensor) -> Tensor:
        """Predict masks.

        Args:
            pooled: float32 [N * D, channels, P, P].
            channel: int64 [N * D], the output channel of each row's class.

        Returns:
            float32 [N * D, M, M] probabilities.
        """
        logits = self.predictor(self.convs(pooled))
        if self.class_agnostic:
            return torch.sigmoid(logits[:, 0])
        index = channel.reshape(-1, 1, 1, 1).expand(-1, 1, logits.shape[2], logits.shape[3])
        return torch.sigmoid(torch.gather(logits, 1, index)[:, 0])
