"""The body of a torchvision checkpoint, read from its names and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from model.bodies.mobilenet import MobileNetV3Body
from model.errors import CheckpointError
from model.families.resnet import read_stages
from model.families.shapes import Shapes
from model.families.torchvision.foreign_body import family_of
from model.spec import MobileNetV3Spec, ResNetSpec
from model.spec.body import NormKind

_PREFIX = "backbone.body."
_RESNETS: dict[tuple[str, tuple[int, ...], int, int], str] = {
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
# With fewer equal shapes it is another network, not a damaged file.
_MIN_SIMILARITY = 0.9


@dataclass(frozen=True, slots=True)
class BodyReading:
    """A body, torchvision's name for it, and the stride of each of its levels."""

    spec: ResNetSpec | MobileNetV3Spec
    name: str
    strides: tuple[int, ...]


def read_body(shapes: Shapes, norm_eps: float) -> BodyReading:
    """Identify the body.

    Raises:
        CheckpointError: neither a ResNet nor a MobileNet-V3-large with a feature pyramid.
    """
    if shapes.has("backbone.fpn."):
        if shapes.has(f"{_PREFIX}layer"):
            return _resnet(shapes, norm_eps)
        mobilenet = _closest_mobilenet(shapes, norm_eps)
        if mobilenet is not None:
            return _mobilenet(shapes, *mobilenet)
    raise CheckpointError(_refusal(shapes))


def _refusal(shapes: Shapes) -> str:
    """What the body is, as far as names tell, and what to do."""
    has_pyramid = shapes.has("backbone.fpn.")
    prefix = _PREFIX if has_pyramid else "backbone."
    names = {n.removeprefix(prefix): s for n, s in shapes.by_name.items() if n.startswith(prefix)}
    family = family_of(names)
    body = "unknown" if family is None else f"a {family}"
    if family == "MobileNetV3":
        body += " of other sizes than mobilenet_v3_large"
    return (
        f"{shapes.path}: the body is {body}{'' if has_pyramid else ', without a feature pyramid'}; "
        "weights alone tell only a ResNet, ResNeXt or MobileNet-V3-large with a pyramid; export "
        "the model itself (maskport.export_onnx(model, …), or --model)"
    )


def norm_kind(shapes: Shapes, part: str, layer: str) -> NormKind:
    """The normalization of a part, by one of its layers; only BatchNorm has statistics."""
    if not shapes.has(part + layer):
        return "none"
    has_statistics = any(
        name.startswith(part) and name.endswith(".running_mean") for name in shapes.by_name
    )
    return "batch_norm" if has_statistics else "group_norm"


def input_channels(shapes: Shapes) -> int:
    """Channels of the photos that the body takes."""
    is_resnet = shapes.has(f"{_PREFIX}layer")
    return shapes.of(f"{_PREFIX}{'conv1' if is_resnet else '0.0'}.weight", 4)[1]


def _pyramid_inputs(shapes: Shapes) -> list[int]:
    """Channels that each lateral convolution of the pyramid takes, finest first."""
    levels = max(shapes.count(rf"backbone\.fpn\.{c}_blocks\.(\d+)\.") for c in ("inner", "layer"))
    names = [f"backbone.fpn.inner_blocks.{i}.0.weight" for i in range(max(levels, 1))]
    return [shapes.of(name, 4)[1] for name in names]


def _resnet(shapes: Shapes, norm_eps: float) -> BodyReading:
    count = shapes.count(r"backbone\.body\.layer(\d+)\.")
    if not 1 <= count <= 4:
        raise CheckpointError(
            f"{shapes.path}: {count} stages under '{_PREFIX}layer'; a ResNet has 1 to 4"
        )
    stages = read_stages(shapes, [f"{_PREFIX}layer{i + 1}" for i in range(count)])
    spec = ResNetSpec(
        stem_channels=shapes.of(f"{_PREFIX}conv1.weight", 4)[0],
        dilations=(1,) * count,
        norm=norm_kind(shapes, _PREFIX, "bn1."),
        norm_eps=norm_eps,
        outputs=_match_outputs(stages.channels, shapes),
        **stages._asdict(),
    )
    key = (spec.block, spec.blocks, spec.widths[0], spec.groups)
    name = _RESNETS.get(key, f"resnet_{spec.depth}_narrow")
    return BodyReading(spec, name, tuple(4 * 2**i for i in spec.outputs))


def _match_outputs(channels: Sequence[int], shapes: Shapes) -> tuple[int, ...]:
    """The stages that feed the pyramid: consecutive, ending at the last one that fits."""
    inputs = _pyramid_inputs(shapes)
    for start in range(len(channels) - len(inputs), -1, -1):
        if list(channels[start : start + len(inputs)]) == inputs:
            return tuple(range(start, start + len(inputs)))
    raise CheckpointError(
        f"{shapes.path}: the pyramid's lateral convolutions take {inputs} channels; expected "
        f"those of consecutive stages of the body, {list(channels)}"
    )


def _mobilenet(shapes: Shapes, spec: MobileNetV3Spec, body: MobileNetV3Body) -> BodyReading:
    strided = [i for i, block in enumerate(body) if getattr(block, "_is_cn", False)]
    # torchvision's extractor: the stem, the strided blocks, the last convolution.
    stages = [0, *strided, len(body) - 1]
    widths = [_width(body[i]) for i in stages]
    matches = _match_outputs(widths, shapes)
    outputs = tuple(stages[i] for i in matches)
    strides = tuple(min(2 * 2**i, 32) for i in matches)
    channels = tuple(widths[i] for i in matches)
    return BodyReading(
        replace(spec, outputs=outputs, channels=channels), "mobilenet_v3_large", strides
    )


def _width(block: Any) -> int:
    return int(block.out_channels)


def _closest_mobilenet(
    shapes: Shapes, norm_eps: float
) -> tuple[MobileNetV3Spec, MobileNetV3Body] | None:
    """The width with the most equal shapes; `load` names the tensors that differ."""
    actual = {
        n.removeprefix(_PREFIX): s for n, s in shapes.by_name.items() if n.startswith(_PREFIX)
    }
    best, highest = None, _MIN_SIMILARITY
    for width in _MOBILENET_WIDTHS:
        for reduced_tail in (False, True):
            spec = MobileNetV3Spec(width, reduced_tail, norm_eps=norm_eps)
            with torch.device("meta"):
                body = MobileNetV3Body(spec)
            expected = {n: tuple(t.shape) for n, t in body.state_dict().items()}
            similarity = sum(expected.get(n) == s for n, s in actual.items()) / max(len(actual), 1)
            if similarity == 1:
                return spec, body
            if similarity > highest:
                best, highest = (spec, body), similarity
    return best
