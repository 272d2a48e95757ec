"""torchvision's own ResNet and MobileNet for a checkpoint of any widths.

Shares no code with `model.bodies`: a dilated stage is set up as users do, on the built modules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, resnet

from model.errors import SpecError
from model.spec import MobileNetV3Spec, ResNetSpec
from model.spec.body import GROUPS_OF_GROUP_NORM, NormKind

NormOf = Callable[[int], nn.Module]


def norm_of(kind: NormKind, eps: float) -> NormOf:
    """The constructor of a normalization, from channels."""
    if kind == "group_norm":
        return partial(nn.GroupNorm, GROUPS_OF_GROUP_NORM, eps=eps)
    return partial(nn.BatchNorm2d, eps=eps)


def has_blocks(spec: ResNetSpec) -> bool:
    """Whether torchvision's blocks can have these widths."""
    if spec.block == "basic":
        return spec.widths == spec.channels
    return all(outputs % resnet.Bottleneck.expansion == 0 for outputs in spec.channels)


def resnet_body(spec: ResNetSpec, inputs: int) -> nn.Module:
    """A `ResNet` of torchvision's blocks.

    Args:
        spec: of a checkpoint of the torchvision dialect.
        inputs: channels of the photo.

    Raises:
        SpecError: not `has_blocks`.
    """
    if not has_blocks(spec):
        raise SpecError("body: expected widths of torchvision's blocks")
    block = resnet.BasicBlock if spec.block == "basic" else resnet.Bottleneck
    norm = norm_of(spec.norm, spec.norm_eps)
    with torch.device("meta"):  # its layers are replaced
        body = resnet.ResNet(block, [1, 1, 1, 1])
    body.conv1 = nn.Conv2d(inputs, spec.stem_channels, 7, 2, 3, bias=False)
    body.bn1 = norm(spec.stem_channels)
    channels = spec.stem_channels
    for stage, count in enumerate(spec.blocks):
        width, outputs = spec.widths[stage], spec.channels[stage]
        planes = outputs // block.expansion
        stride = 1 if stage == 0 or spec.dilations[stage] > 1 else 2
        blocks = []
        for index in range(count):
            step = stride if index == 0 else 1
            projects = step != 1 or channels != outputs
            shortcut = nn.Conv2d(channels, outputs, 1, step, bias=False)
            blocks.append(
                block(
                    channels,
                    planes,
                    step,
                    nn.Sequential(shortcut, norm(outputs)) if projects else None,
                    spec.groups,
                    # torchvision's block computes its width from this base.
                    (64 * width + 1e-3) / (planes * spec.groups) if block.expansion > 1 else 64,
                    norm_layer=norm,
                )
            )
            channels = outputs
        setattr(body, f"layer{stage + 1}", nn.Sequential(*blocks))
        _dilate(blocks, spec, stage)
    return body  # type: ignore[no-any-return]


def _dilate(blocks: list[nn.Module], spec: ResNetSpec, stage: int) -> None:
    for index, block in enumerate(blocks):
        first = spec.first_dilations[stage] if spec.first_dilations and index == 0 else 0
        dilation = first or spec.dilations[stage]
        for part in block.modules():
            if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
                part.dilation = part.padding = (dilation, dilation)


def mobilenet_body(spec: MobileNetV3Spec, inputs: int) -> nn.Module:
    """The `features` of `mobilenet_v3_large`."""
    trunk = mobilenet_v3_large(
        weights=None,
        width_mult=spec.width_multiplier,
        reduced_tail=spec.reduced_tail,
        norm_layer=norm_of(spec.norm, spec.norm_eps),
    ).features
    stem = trunk[0][0]
    trunk[0][0] = nn.Conv2d(inputs, stem.out_channels, 3, 2, 1, bias=False)
    return trunk  # type: ignore[no-any-return]
