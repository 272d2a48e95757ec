"""The mask head: a small fully convolutional network per detection.

Legend: N images, D detections, M mask side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from model.bodies.norm import norm_layer
from model.spec import MaskHeadSpec


class MaskHead(nn.Module):
    """Mask probabilities of the predicted class only; classes do not compete.

    Source: Mask R-CNN, sec. 3 and fig. 4; torchvision `MaskRCNNHeads`, `MaskRCNNPredictor`.
    """

    def __init__(self, channels: int, spec: MaskHeadSpec, num_outputs: int) -> None:
        super().__init__()
        norm = norm_layer(spec.norm, spec.norm_eps)
        self.class_agnostic = spec.class_agnostic
        self.convs = MaskRCNNHeads(channels, list(spec.conv_widths), spec.dilation, norm_layer=norm)
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
        predictor = self.predictor
        hidden = predictor.relu(predictor.conv5_mask(self.convs(pooled)))  # [N * D, C, M, M]
        weight = predictor.mask_fcn_logits.weight.flatten(1)  # [classes, C]
        bias = predictor.mask_fcn_logits.bias
        if self.class_agnostic:
            channel = torch.zeros_like(channel)
        # Each row needs one channel; the convolution would compute those of all classes.
        row_weight = embedding(channel, weight)[:, None]  # [N * D, 1, C]
        logits = torch.bmm(row_weight, hidden.flatten(2))[:, 0]  # [N * D, M * M]
        logits = logits + embedding(channel, bias[:, None])
        return torch.sigmoid(logits.float()).reshape(-1, *hidden.shape[2:])
