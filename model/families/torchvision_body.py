"""Which body a torchvision checkpoint has, read off its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.bodies.mobilenet import MobileNetV3Body
from model.errors import CheckpointError
from model.spec import MobileNetV3Spec, ResNetSpec

Shapes = Mapping[str, tuple[int, ...]]
_PREFIX = "backbone.body."
_RESNETS = {
    ("basic", (2, 2, 2, 2), 64, 1): "resnet18",
    ("basic", (3, 4, 6, 3), 64, 1): "resnet34",
    ("bottleneck", (3, 4, 6, 3), 64, 1): "resnet50",
    ("bottleneck", (3, 4, 23, 3), 64, 1): "resnet101",
    ("bottleneck", (3, 8, 36, 3), 64, 1): "resnet152",
    ("bottleneck", (3, 4, 6, 3), 128, 32): "resnext50_32x4d",
    ("bottleneck", (3, 4, 23, 3), 256, 32): "resnext101_32x8d",
    ("bottleneck", (3, 4, 23, 3), 256, 64): "resnext101_64x4d",
    ("bottleneck", (3, 4, 6, 3), 128, 1): "wide_resnet50_2",
    ("bottleneck", (3, 4, 23, 3), 128, 1): "wide_resnet101_2",
}
_MOBILENET_WIDTHS = (1.0, 0.75, 0.5, 0.35, 0.25, 1.25, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class BodyReading:
    """A body, torchvision's name for it, and the stride of each level that it gives."""

    spec: ResNetSpec | MobileNetV3Spec
    name: str
    strides: tuple[int, ...]


def read_body(shapes: Shapes, norm_eps: float, path: Path) -> BodyReading:
    """Recognise the body.

    Raises:
        CheckpointError: neither a ResNet nor a MobileNet-V3-large with a feature pyramid.
    """
    if f"{_PREFIX}layer1.0.conv1.weight" in shapes:
        return _resnet(shapes, norm_eps, path)
    if f"{_PREFIX}0.0.weight" in shapes:
        return _mobilenet(shapes, norm_eps, path)
    raise CheckpointError(
        f"{path}: no body that is known under 'backbone.body.'; expected a torchvision ResNet, "
        "ResNeXt or MobileNet-V3-large with a feature pyramid"
    )


def _pyramid_inputs(shapes: Shapes) -> list[int]:
    """Channels that each lateral convolution of the pyramid takes, finest first."""
    found = {
        int(m[1]): s[1]
        for n, s in shapes.items()
        if (m := re.fullmatch(r"backbone\.fpn\.inner_blocks\.(\d+)\.0\.weight", n))
    }
    return [found[i] for i in sorted(found)]


def _resnet(shapes: Shapes, norm_eps: float, path: Path) -> BodyReading:
    stages = sorted({m[1] for n in shapes if (m := re.match(r"backbone\.body\.layer(\d+)\.", n))})
    blocks = tuple(_blocks(shapes, stage) for stage in stages)
    is_bottleneck = f"{_PREFIX}layer1.0.conv3.weight" in shapes
    last = "conv3" if is_bottleneck else "conv2"
    inner = "conv2" if is_bottleneck else "conv1"
    names = [f"{_PREFIX}layer{s}.0" for s in stages]
    widths = tuple(shapes[f"{n}.{inner}.weight"][0] for n in names)
    channels = tuple(shapes[f"{n}.{last}.weight"][0] for n in names)
    conv2 = shapes[f"{names[0]}.conv2.weight"]
    groups = conv2[0] // conv2[1] if is_bottleneck else 1
    outputs = _match_outputs(channels, _pyramid_inputs(shapes), path)
    block = "bottleneck" if is_bottleneck else "basic"
    spec = ResNetSpec(
        blocks=blocks,
        block=block,
        stem_channels=shapes[f"{_PREFIX}conv1.weight"][0],
        widths=widths,
        channels=channels,
        groups=groups,
        dilations=(1,) * len(blocks),
        norm_eps=norm_eps,
        outputs=outputs,
    )
    name = _RESNETS.get((block, blocks, widths[0], groups), f"resnet_{_depth(spec)}_narrow")
    return BodyReading(spec, name, tuple(4 * 2**i for i in outputs))


def _blocks(shapes: Shapes, stage: str) -> int:
    pattern = rf"backbone\.body\.layer{stage}\.(\d+)\."
    return len({m[1] for n in shapes if (m := re.match(pattern, n))})


def _depth(spec: ResNetSpec) -> int:
    return 2 + sum(spec.blocks) * (3 if spec.block == "bottleneck" else 2)


def _match_outputs(channels: tuple[int, ...], inputs: list[int], path: Path) -> tuple[int, ...]:
    """The stages that feed the pyramid: consecutive, ending at the last one that fits."""
    for start in range(len(channels) - len(inputs), -1, -1):
        if inputs and list(channels[start : start + len(inputs)]) == inputs:
            return tuple(range(start, start + len(inputs)))
    raise CheckpointError(
        f"{path}: the pyramid's lateral convolutions take {inputs} channels, which are no "
        f"consecutive stages of a body with {list(channels)}"
    )


def _mobilenet(shapes: Shapes, norm_eps: float, path: Path) -> BodyReading:
    expected = {n.removeprefix(_PREFIX): s for n, s in shapes.items() if n.startswith(_PREFIX)}
    inputs = _pyramid_inputs(shapes)
    for width in _MOBILENET_WIDTHS:
        for reduced_tail in (False, True):
            spec = MobileNetV3Spec(width, reduced_tail, tuple(inputs), norm_eps=norm_eps)
            with torch.device("meta"):
                body = MobileNetV3Body(spec)
            own = {n: tuple(t.shape) for n, t in body.state_dict().items()}
            if all(own.get(n) == s for n, s in expected.items()):
                spec = replace(spec, outputs=_mobilenet_outputs(body, inputs, path))
                return BodyReading(spec, "mobilenet_v3_large", (32,) * len(inputs))
    raise CheckpointError(
        f"{path}: a MobileNet whose widths are none of MobileNet-V3-large at {_MOBILENET_WIDTHS}"
    )


def _mobilenet_outputs(body: MobileNetV3Body, inputs: list[int], path: Path) -> tuple[int, ...]:
    """torchvision's extractor takes the last strided block and the final convolution."""
    strided = [i for i, b in enumerate(body) if getattr(b, "_is_cn", False)]
    outputs = (strided[-1], len(body) - 1)
    if [int(body[i].out_channels) for i in outputs] != inputs:
        raise CheckpointError(
            f"{path}: the pyramid takes {inputs} channels; expected those of blocks {outputs} "
            "of MobileNet-V3-large, as torchvision's builder connects them"
        )
    return outputs
