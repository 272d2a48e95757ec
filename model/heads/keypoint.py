"""The keypoint head: one heatmap per keypoint and detection.

Legend: N images, D detections, P pooled side, J keypoints.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads

from model.spec import KeypointHeadSpec


class KeypointHead(nn.Module):
    """Convolutions, a deconvolution to twice the side, a bilinear resize to four times the side.

    Source: Mask R-CNN, sec. 5; torchvision `KeypointRCNNHeads`, `KeypointRCNNPredictor`;
    detectron2 `KRCNNConvDeconvUpsampleHead`, the same network.
    """

    def __init__(self, channels: int, spec: KeypointHeadSpec) -> None:
        super().__init__()
        self.convs = KeypointRCNNHeads(channels, spec.conv_widths)
        self.kps_score_lowres = nn.ConvTranspose2d(
            spec.conv_widths[-1], len(spec.names), 4, stride=2, padding=1
        )

    def forward(self, pooled: Tensor) -> Tensor:
        """Map float32 [N * D, C, P, P] to logits, float32 [N * D, J, 4P, 4P]."""
        coarse = self.kps_score_lowres(self.convs(pooled))
        return functional.interpolate(
            coarse.float(), scale_factor=2.0, mode="bilinear", align_corners=False
        )
