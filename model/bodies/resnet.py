"""ResNet and ResNeXt bodies of any widths, which come from the checkpoint.

torchvision's blocks derive a stage's inner width from its output and always stride the 3x3
convolution. detectron2's checkpoints do neither, so these blocks differ but keep the names.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from model.bodies.norm import Norm, norm_layer
from model.spec import ResNetSpec, RoIStageSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """What the blocks of a stage have in common."""

    width: int
    outputs: int
    groups: int
    dilation: int
    stride_in_1x1: bool
    norm: Norm | None
    first_dilation: int = 0  # of the first block; 0: as of the others

    def conv(self, inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
        """A 1x1 or 3x3 convolution, padded so that only the stride changes the sides."""
        dilation, groups = (self.dilation, self.groups) if side == 3 else (1, 1)
        padding, bias = dilation * (side // 2), self.norm is None
        return nn.Conv2d(inputs, outputs, side, stride, padding, dilation, groups, bias)

    def norm_after(self, channels: int) -> nn.Module:
        """The normalization after a convolution."""
        return nn.Identity() if self.norm is None else self.norm(channels)

    def shortcut(self, inputs: int, stride: int) -> nn.Sequential | None:
        """A projection, if the block changes the shape."""
        if stride == 1 and inputs == self.outputs:
            return None
        projection = self.conv(inputs, self.outputs, 1, stride)
        return nn.Sequential(projection, self.norm_after(self.outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (Deep Residual Learning, fig. 5 left)."""

    def __init__(self, inputs: int, layout: Layout, stride: int) -> None:
        super().__init__()
        self.conv1 = layout.conv(inputs, layout.width, 3, stride)
        self.bn1 = layout.norm_after(layout.width)
        self.conv2 = layout.conv(layout.width, layout.outputs, 3)
        self.bn2 = layout.norm_after(layout.outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = layout.shortcut(inputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (fig. 5 right); grouped 3x3 for ResNeXt."""

    def __init__(self, inputs: int, layout: Layout, stride: int) -> None:
        super().__init__()
        width = layout.width
        first, second = (stride, 1) if layout.stride_in_1x1 else (1, stride)
        self.conv1 = layout.conv(inputs, width, 1, first)
        self.bn1 = layout.norm_after(width)
        self.conv2 = layout.conv(width, width, 3, second)
        self.bn2 = layout.norm_after(width)
        self.conv3 = layout.conv(width, layout.outputs, 1)
        self.bn3 = layout.norm_after(layout.outputs)
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
    """Stem and stages; returns the stages in `spec.outputs`, finest first."""

    def __init__(self, spec: ResNetSpec, inputs: int = 3) -> None:
        super().__init__()
        norm = norm_layer(spec.norm, spec.norm_eps)
        self.outputs = spec.outputs
        self.conv1 = nn.Conv2d(inputs, spec.stem_channels, 7, 2, 3, bias=norm is None)
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
                spec.first_dilations[stage] if spec.first_dilations else 0,
            )
            stride = 1 if stage == 0 or spec.dilations[stage] > 1 else 2
            blocks = _stage(inputs, layout, spec.block, spec.blocks[stage], stride)
            self.add_module(f"layer{stage + 1}", nn.Sequential(blocks))
            inputs = spec.channels[stage]
        self.channels = [spec.channels[i] for i in spec.outputs]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map [N, inputs, H, W] to one feature map per output."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in range(max(self.outputs) + 1):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            if stage in self.outputs:
                features.append(x)
        return features


class RoIStage(nn.Sequential):
    """A stage of bottlenecks that runs on every pooled RoI (res5 of C4).

    Maps [R, inputs, P, P] to [R, channels, P / stride, P / stride].

    Source: Deep Residual Learning, appendix A; detectron2 `Res5ROIHeads`.
    """

    def __init__(self, inputs: int, spec: RoIStageSpec) -> None:
        norm = norm_layer(spec.norm, spec.norm_eps)
        layout = Layout(spec.width, spec.channels, spec.groups, 1, spec.stride_in_1x1, norm)
        super().__init__(_stage(inputs, layout, "bottleneck", spec.blocks, spec.stride))


class _EndPaddedPool(nn.Module):
    """3x3 max pooling with stride 2, padded at the end only, as TensorFlow's "SAME"."""

    def forward(self, x: Tensor) -> Tensor:
        # The input went through a ReLU, so that zero padding never exceeds a pixel.
        return functional.max_pool2d(functional.pad(x, (0, 1, 0, 1)), 3, 2)


def _stage(
    inputs: int, layout: Layout, block: Literal["basic", "bottleneck"], count: int, stride: int
) -> OrderedDict[str, nn.Module]:
    block_class = BasicBlock if block == "basic" else Bottleneck
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    first = replace(layout, dilation=layout.first_dilation or layout.dilation)
    blocks["0"] = block_class(inputs, first, stride)
    for index in range(1, count):
        blocks[str(index)] = block_class(layout.outputs, layout, 1)
    return blocks
