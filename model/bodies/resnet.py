"""ResNet and ResNeXt bodies whose every width is free, because checkpoints decide them.

torchvision's blocks tie a stage's inner width to its output and always stride the 3x3
convolution; detectron2's checkpoints do neither, hence blocks of our own with the same names.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from model.spec import ResNetSpec

Norm = partial[nn.BatchNorm2d]


def _conv3x3(inputs: int, outputs: int, stride: int, groups: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, groups, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (Deep Residual Learning, fig. 5 left)."""

    def __init__(self, inputs: int, spec: ResNetSpec, stage: int, stride: int, norm: Norm) -> None:
        super().__init__()
        width, outputs = spec.widths[stage], spec.channels[stage]
        dilation = spec.dilations[stage]
        self.conv1 = _conv3x3(inputs, width, stride, 1, dilation)
        self.bn1 = norm(width)
        self.conv2 = _conv3x3(width, outputs, 1, 1, dilation)
        self.bn2 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut (fig. 5 right); grouped 3x3 for ResNeXt."""

    def __init__(self, inputs: int, spec: ResNetSpec, stage: int, stride: int, norm: Norm) -> None:
        super().__init__()
        width, outputs = spec.widths[stage], spec.channels[stage]
        first, second = (stride, 1) if spec.stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = norm(width)
        self.conv2 = _conv3x3(width, width, second, spec.groups, spec.dilations[stage])
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride, norm)

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
        norm: Norm = partial(nn.BatchNorm2d, eps=spec.norm_eps)
        self.outputs = spec.outputs
        self.conv1 = nn.Conv2d(3, spec.stem_channels, 7, 2, 3, bias=False)
        self.bn1 = norm(spec.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = spec.stem_channels
        for stage in range(len(spec.blocks)):
            self.add_module(f"layer{stage + 1}", _stage(inputs, spec, stage, norm))
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


def _stage(inputs: int, spec: ResNetSpec, stage: int, norm: Norm) -> nn.Sequential:
    block = BasicBlock if spec.block == "basic" else Bottleneck
    stride = 1 if stage == 0 or spec.dilations[stage] > 1 else 2
    first = block(inputs, spec, stage, stride, norm)
    repeats = range(1, spec.blocks[stage])
    rest = [block(spec.channels[stage], spec, stage, 1, norm) for _ in repeats]
    return nn.Sequential(first, *rest)
