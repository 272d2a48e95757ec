"""The body and the pyramid of a live model.

Both become ours if our layers equal them in every type and value; else the body, or the whole
backbone, is kept as the user's module.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from model.bodies.fpn import FeaturePyramid
from model.bodies.kept import KeptBody
from model.bodies.mobilenet import MobileNetV3Body
from model.bodies.resnet import ResNetBody
from model.errors import MaskportError
from model.families.shapes import Shapes
from model.families.torchvision.body import BodyReading, read_body
from model.live.faces import class_name, is_plain
from model.live.layers import CONTAINERS, is_ordinary, norm_of, same_layers
from model.spec import FpnSpec, ModuleBodySpec, ResNetSpec
from model.spec.tree import BodySpec


@dataclass(frozen=True, slots=True)
class Backbone:
    """The body and pyramid of the spec, the kept module (None: our layers), and the body's name."""

    body: BodySpec
    fpn: FpnSpec | None
    kept: nn.Module | None
    name: str


def read_backbone(
    backbone: nn.Module, maps: dict[str, Tensor], strides: tuple[int, ...], channels: int
) -> Backbone:
    """Read the backbone.

    Args:
        backbone: of the live model.
        maps: its output for one canvas.
        strides: of the maps.
        channels: of the photos.
    """
    fpn = _pyramid(backbone)
    if fpn is not None:
        assert isinstance(backbone, BackboneWithFPN)
        body = _own_body(backbone, channels)
        if body is not None:
            return Backbone(body.spec, fpn, None, body.name)
        inputs = tuple(_input_channels(backbone.fpn))
        # The pyramid has one level per output of the body, and the extra one.
        spec = _module_body(backbone.body, inputs, strides[: len(inputs)])
        return Backbone(spec, fpn, KeptBody(backbone.body), _short_name(backbone.body))
    widths = tuple(int(m.shape[1]) for m in maps.values())
    spec = _module_body(backbone, widths, strides)
    return Backbone(spec, None, KeptBody(backbone), _short_name(backbone))


def _module_body(
    module: nn.Module, channels: tuple[int, ...], strides: tuple[int, ...]
) -> ModuleBodySpec:
    return ModuleBodySpec(class_name(module), channels, strides, tuple(range(len(channels))))


def _short_name(module: nn.Module) -> str:
    """A name for the architecture; containers have none of their own."""
    is_container = isinstance(module, CONTAINERS)
    return "custom" if is_container else type(module).__name__.lower()


def _pyramid(backbone: Any) -> FpnSpec | None:
    """The pyramid of a `BackboneWithFPN`, if our layers equal it."""
    if not (is_plain(backbone, BackboneWithFPN) and is_plain(backbone.fpn, FeaturePyramidNetwork)):
        return None
    fpn = backbone.fpn
    extra = fpn.extra_blocks
    if extra is not None and not is_plain(extra, LastLevelMaxPool):
        return None
    norm, eps = norm_of(fpn)
    try:
        spec = FpnSpec(_width(fpn), norm, eps, "none" if extra is None else "pool")
        with torch.device("meta"):
            ours = FeaturePyramid(_input_channels(fpn), spec)
    except (MaskportError, AttributeError, IndexError):
        return None
    theirs = nn.ModuleDict({"inner_blocks": fpn.inner_blocks, "layer_blocks": fpn.layer_blocks})
    return spec if is_ordinary(theirs) and same_layers(theirs, ours) else None


def _width(fpn: Any) -> int:
    return int(fpn.layer_blocks[0][0].out_channels)


def _input_channels(fpn: Any) -> list[int]:
    return [int(block[0].in_channels) for block in fpn.inner_blocks]


def _own_body(backbone: Any, channels: int) -> BodyReading | None:
    """A ResNet or MobileNet-V3 whose layers equal ours."""
    body = backbone.body
    if not is_plain(body, IntermediateLayerGetter) or not is_ordinary(body):
        return None
    is_mobilenet = any(isinstance(m, InvertedResidual) for m in body.modules())
    if not is_mobilenet and not hasattr(body, "layer1"):
        return None
    shapes = {f"backbone.{n}": tuple(t.shape) for n, t in backbone.state_dict().items()}
    norm, eps = norm_of(body)
    try:
        reading = read_body(Shapes(Path("the model"), shapes), eps)
        spec = reading.spec
        if isinstance(spec, ResNetSpec):
            spec = _dilations(body, replace(spec, norm=norm))
        with torch.device("meta"):
            ours = _our_body(spec, channels)
    except (MaskportError, AttributeError, IndexError, ValueError, RuntimeError):
        return None
    if list(body.return_layers) != [_layer_name(spec, i) for i in spec.outputs]:
        return None
    return replace(reading, spec=spec) if same_layers(body, ours) else None


def _our_body(spec: BodySpec, channels: int) -> nn.Module:
    if isinstance(spec, ResNetSpec):
        return ResNetBody(spec, channels)
    assert not isinstance(spec, ModuleBodySpec)
    return MobileNetV3Body(spec, channels)


def _layer_name(spec: BodySpec, output: int) -> str:
    return f"layer{output + 1}" if isinstance(spec, ResNetSpec) else str(output)


def _dilations(body: nn.Module, spec: ResNetSpec) -> ResNetSpec:
    """With the dilations of the first and the last block of each stage."""
    first, last = [], []
    for stage in range(len(spec.blocks)):
        blocks: list[Any] = list(body.get_submodule(f"layer{stage + 1}").children())
        first.append(int(blocks[0].conv2.dilation[0]))
        last.append(int(blocks[-1].conv2.dilation[0]))
    different = tuple(first) if first != last else ()
    return replace(spec, dilations=tuple(last), first_dilations=different)
