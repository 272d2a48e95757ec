"""ResNet and ResNeXt bodies whose every width is free, because checkpoints decide them.

torchvision's blocks tie a stage's inner width to its output and always stride the 3x3
convolution; detectron2's checkpoints do neither, hence blocks of our own with the same names.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from model.bodies.norm import Norm, norm_layer
from model.spec import ResNetSpec, RoIStageSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """One stage: what its blocks have in common."""

    width: int
    outputs: int
    groups: int
    dilation: int
    stride_in_1x1: bool
    norm: Norm | None

    def conv(self, inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
        """A 1x1 or 3x3 convolution that keeps the sides, but for its stride."""
        dilation, groups = (self.dilation, self.groups) if side == 3 else (1, 1)
        padding, bias = dilation * (side // 2), self.norm is None
        return nn.Conv2d(inputs, outputs, side, stride, padding, dilation, groups, bias)

    def normalise(self, channels: int) -> nn.Module:
        """What follows a convolution."""
        return nn.Identity() if self.norm is None else self.norm(channels)

    def shortcut(self, inputs: int, stride: int) -> nn.Sequential | None:
        """A projection where shapes differ."""
        if stride == 1 and inputs == self.outputs:
            return None
        projection = self.conv(inputs, self.outputs, 1, stride)
        return nn.Sequential(projection, self.normalise(self.outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (Deep Residual Learning, fig. 5 left)."""

    def __init__(self, inputs: int, layout: Layout, stride: int) -> None:
        super().__init__()
        self.conv1 = layout.conv(inputs, layout.width, 3, stride)
        self.bn1 = layout.normalise(layout.width)
        self.conv2 = layout.conv(layout.width, layout.outputs, 3)
        self.bn2 = layout.normalise(layout.outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = layout.shortcut(inputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut (fig. 5 right); grouped 3x3 for ResNeXt."""

    def __init__(self, inputs: int, layout: Layout, stride: int) -> None:
        super().__init__()
        width = layout.width
        first, second = (stride, 1) if layout.stride_in_1x1 else (1, stride)
        self.conv1 = layout.conv(inputs, width, 1, first)
        self.bn1 = layout.normalise(width)
        self.conv2 = layout.conv(width, width, 3, second)
        self.bn2 = layout.normalise(width)
        self.conv3 = layout.conv(width, layout.outputs, 1)
        self.bn3 = layout.normalise(layout.outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = layout.shortcut(inputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


class ResNetBody(nn.Module):
    """Stem and stages; answers the outputs that the spec asks for, finest first."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        norm = norm_layer(spec.norm, spec.norm_eps)
        self.outputs = spec.outputs
        self.conv1 = nn.Conv2d(3, spec.stem_channels, 7, 2, 3, bias=norm is None)
        self.bn1 = nn.Identity() if norm is None else norm(spec.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if spec.stem_pool == "both" else _EndPaddedPool()
        inputs = spec.stem_channels
        for stage in range(len(spec.blocks)):
            layout = Layout(
                spec.widths[stage],
                spec.channels[stage],
                spec.groups,
                spec.dilations[stage],
                spec.stride_in_1x1,
                norm,
            )
            stride = 1 if stage == 0 or spec.dilations[stage] > 1 else 2
            blocks = _stage(inputs, layout, spec.block, spec.blocks[stage], stride)
            self.add_module(f"layer{stage + 1}", nn.Sequential(blocks))
            inputs = spec.channels[stage]
        self.channels = [spec.channels[i] for i in spec.outputs]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map [N, 3, H, W] to one feature map per output."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in range(max(self.outputs) + 1):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            if stage in self.outputs:
                features.append(x)
        return features


class RoIStage(nn.Sequential):
    """A stage of bottlenecks that runs on every pooled RoI (C4's res5).

    Maps [R, inputs, P, P] to [R, channels, P / stride, P / stride].

    Source: Deep Residual Learning, appendix A; detectron2 `Res5ROIHeads`.
    """

    def __init__(self, inputs: int, spec: RoIStageSpec) -> None:
        norm = norm_layer(spec.norm, spec.norm_eps)
        layout = Layout(spec.width, spec.channels, spec.groups, 1, spec.stride_in_1x1, norm)
        super().__init__(_stage(inputs, layout, "bottleneck", spec.blocks, spec.stride))


class _EndPaddedPool(nn.Module):
    """3x3 max pooling by 2, padded as TensorFlow's "SAME" pads even sides: at the end only."""

    def forward(self, x: Tensor) -> Tensor:
        # What is pooled went through a ReLU: zeros never win where there is a pixel.
        return functional.max_pool2d(functional.pad(x, (0, 1, 0, 1)), 3, 2)


def _stage(
    inputs: int, layout: Layout, block: Literal["basic", "bottleneck"], count: int, stride: int
) -> OrderedDict[str, nn.Module]:
    made = BasicBlock if block == "basic" else Bottleneck
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(count):
        first = index == 0
        blocks[str(index)] = made(
            inputs if first else layout.outputs, layout, stride if first else 1
        )
    return blocks
