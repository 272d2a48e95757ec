"""The box head: features of every proposal to class logits and box deltas.

Legend: N images, R proposals, C foreground classes.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from model.bodies.norm import norm_layer
from model.spec import BoxHeadSpec


class BoxHead(nn.Module):
    """Pooled features, or the features of a RoI stage, to class logits and box deltas.

    Names of the children are torchvision's.

    Source: Fast R-CNN, sec. 2; torchvision `TwoMLPHead`, `FastRCNNConvFCHead`; detectron2
    `FastRCNNConvFCHead`, and `Res5ROIHeads`, which takes a stage's spatial mean.
    """

    def __init__(
        self, channels: int, side: int, spec: BoxHeadSpec, num_foreground: int, *, mean: bool
    ) -> None:
        super().__init__()
        self.takes_mean = mean
        layers, width = _layers(channels, side, spec)
        self.trunk = nn.Sequential(layers)
        width = channels if mean else width
        self.cls_score = nn.Linear(width, num_foreground + 1)
        self.bbox_pred = nn.Linear(width, 4 * delta_groups(spec, num_foreground))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N * R, channels, P, P] to logits [N * R, C + 1], deltas [N * R, 4 * groups]."""
        features = pooled.mean(dim=(2, 3)) if self.takes_mean else self.trunk(pooled)
        return self.cls_score(features), self.bbox_pred(features)


def _layers(channels: int, side: int, spec: BoxHeadSpec) -> tuple[OrderedDict[str, nn.Module], int]:
    """The layers by torchvision's names, and the width of the last one's output."""
    norm = norm_layer(spec.norm, spec.norm_eps)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(spec.conv_widths):
        layers[str(index)] = Conv2dNormActivation(channels, width, 3, norm_layer=norm)
        channels = width
    layers["flatten"] = nn.Flatten()
    width = channels * side * side
    for index, outputs in enumerate(spec.fc_widths):
        layers[linear_name(spec, index)] = nn.Linear(width, outputs)
        layers[f"relu{index}"] = nn.ReLU(inplace=True)
        width = outputs
    return layers, width


def linear_name(spec: BoxHeadSpec, index: int) -> str:
    """Torchvision numbers linear layers from `fc6`; after convolutions, by index in the trunk."""
    convs = len(spec.conv_widths)
    return str(convs + 1 + 2 * index) if convs else f"fc{6 + index}"


def delta_groups(spec: BoxHeadSpec, num_foreground: int) -> int:
    """Boxes regressed per proposal; a background that comes first also has one."""
    if spec.class_agnostic:
        return 1
    return num_foreground + (spec.background == "first")
