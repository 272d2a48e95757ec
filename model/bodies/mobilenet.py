"""torchvision's MobileNet-V3-large trunk as a body."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large

from model.spec import MobileNetV3Spec


class MobileNetV3Body(nn.Sequential):
    """The `features` of `mobilenet_v3_large`; returns the blocks in `spec.outputs`."""

    def __init__(self, spec: MobileNetV3Spec, inputs: int = 3) -> None:
        trunk = mobilenet_v3_large(
            weights=None,
            width_mult=spec.width_multiplier,
            reduced_tail=spec.reduced_tail,
            norm_layer=partial(nn.BatchNorm2d, eps=spec.norm_eps),
        ).features
        if inputs != 3:
            stem = trunk[0][0]
            trunk[0][0] = nn.Conv2d(inputs, stem.out_channels, 3, 2, 1, bias=False)
        super().__init__(*trunk)
        self.outputs = spec.outputs
        self.channels = [trunk[i].out_channels for i in spec.outputs]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map [N, inputs, H, W] to one feature map per output, finest first."""
        features = []
        for index, block in enumerate(self):
            x = block(x)
            if index in self.outputs:
                features.append(x)
        return features
