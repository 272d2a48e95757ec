"""Feature extraction: the body, the feature pyramid, and a stage that runs on RoIs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.spec.checks import ADDED, counts, not_negative, positive, require

NormKind = Literal["none", "batch_norm", "group_norm"]
GROUPS_OF_GROUP_NORM = 32


def require_groups(where: str, norm: NormKind, *channels: int) -> None:
    """Require that GroupNorm's 32 groups divide the channels."""
    if norm == "group_norm":
        odd = [c for c in channels if c % GROUPS_OF_GROUP_NORM]
        require(
            not odd,
            f"{where}: {GROUPS_OF_GROUP_NORM} groups of GroupNorm do not divide "
            f"{odd[0] if odd else 0} channels",
        )


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """A ResNet or ResNeXt body.

    Attributes:
        widths: channels of each stage's 3x3 convolutions.
        channels: channels of each stage's output.
        dilations: of each stage's 3x3 convolutions; a dilated stage keeps its input's resolution.
        outputs: indices of the stages that are returned.
        stem_pool: padding of the stem's max pooling; "end" is bottom and right only (TensorFlow).
        first_dilations: of the 3x3 convolutions in each stage's first block, if not `dilations`
            (torchvision's `replace_stride_with_dilation`: those of the stage before).
    """

    blocks: tuple[int, ...]
    block: Literal["basic", "bottleneck"]
    stem_channels: int
    widths: tuple[int, ...]
    channels: tuple[int, ...]
    groups: int = 1
    stride_in_1x1: bool = False
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    norm: NormKind = "batch_norm"
    norm_eps: float = 1e-5
    outputs: tuple[int, ...] = (0, 1, 2, 3)
    stem_pool: Literal["both", "end"] = "both"
    kind: Literal["resnet"] = "resnet"
    first_dilations: tuple[int, ...] = field(default=(), metadata=ADDED)

    def __post_init__(self) -> None:
        sized = (self.widths, self.channels, self.dilations)
        require(
            len(self.blocks) >= 1 and all(len(s) == len(self.blocks) for s in sized),
            f"body: widths, channels and dilations need one entry per stage, {len(self.blocks)}",
        )
        counts(
            "body",
            blocks=self.blocks,
            stem_channels=self.stem_channels,
            widths=self.widths,
            channels=self.channels,
            groups=self.groups,
            dilations=self.dilations,
            first_dilations=self.first_dilations,
        )
        require(
            len(self.first_dilations) in (0, len(self.blocks)),
            f"body: expected one of first_dilations per stage, {len(self.blocks)}, got "
            f"{len(self.first_dilations)}",
        )
        not_negative("body", norm_eps=self.norm_eps)
        _require_outputs(self.outputs, len(self.blocks))
        require(
            all(width % self.groups == 0 for width in self.widths),
            f"body: {self.groups} groups do not divide the widths {self.widths}",
        )
        require_groups("body", self.norm, self.stem_channels, *self.widths, *self.channels)

    @property
    def depth(self) -> int:
        """Number of layers as in the name ResNet-50."""
        return 2 + sum(self.blocks) * (3 if self.block == "bottleneck" else 2)

    def stride(self, stage: int) -> int:
        """Canvas pixels per cell of a stage's output."""
        return 4 << sum(d == 1 for d in self.dilations[1 : stage + 1])


@dataclass(frozen=True, slots=True)
class MobileNetV3Spec:
    """torchvision's MobileNet-V3-large trunk; `outputs` are indices of its `features`."""

    width_multiplier: float = 1.0
    reduced_tail: bool = False
    channels: tuple[int, ...] = (160, 960)
    norm: Literal["batch_norm"] = "batch_norm"
    norm_eps: float = 1e-5
    outputs: tuple[int, ...] = (13, 16)
    kind: Literal["mobilenet_v3_large"] = "mobilenet_v3_large"

    def __post_init__(self) -> None:
        positive("body", width_multiplier=(self.width_multiplier,))
        counts("body", channels=self.channels)
        not_negative("body", norm_eps=self.norm_eps)
        _require_outputs(self.outputs, 17)
        require(
            len(self.channels) == len(self.outputs),
            f"body: expected one entry of channels per output, got {len(self.channels)} for "
            f"{len(self.outputs)} outputs",
        )


@dataclass(frozen=True, slots=True)
class ModuleBodySpec:
    """A body that is the user's own module, which the exported file contains.

    Attributes:
        name: its class.
        channels: of each output, finest first.
        strides: canvas pixels per cell of each output.
        outputs: indices of its outputs.
    """

    name: str
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: Literal["module"] = "module"

    def __post_init__(self) -> None:
        counts("body", channels=self.channels, strides=self.strides)
        _require_outputs(self.outputs, len(self.channels))
        require(
            len(self.channels) == len(self.strides) == len(self.outputs),
            f"body: expected channels and strides for {len(self.outputs)} outputs, got "
            f"{len(self.channels)} and {len(self.strides)}",
        )

    @property
    def norm(self) -> NormKind:
        """None that the network adds: the module has its own."""
        return "none"

    @property
    def norm_eps(self) -> float:
        """See `norm`."""
        return 0.0


def _require_outputs(outputs: tuple[int, ...], stages: int) -> None:
    require(
        len(outputs) >= 1
        and list(outputs) == sorted(set(outputs))
        and 0 <= outputs[0] <= outputs[-1] < stages,
        f"body: outputs must be ascending indices from 0 to {stages - 1}, got {outputs}",
    )


@dataclass(frozen=True, slots=True)
class FpnSpec:
    """A feature pyramid over the body's outputs.

    `extra_level` "pool" adds a coarser level by subsampling the last one; `fuse` combines a level
    with the coarser one.
    """

    channels: int = 256
    norm: NormKind = "none"
    norm_eps: float = 1e-5
    extra_level: Literal["pool", "none"] = "pool"
    fuse: Literal["sum", "average"] = "sum"

    def __post_init__(self) -> None:
        counts("fpn", channels=self.channels)
        not_negative("fpn", norm_eps=self.norm_eps)
        require_groups("fpn", self.norm, self.channels)


@dataclass(frozen=True, slots=True)
class RoIStageSpec:
    """A ResNet stage that runs on every pooled RoI before the heads: res5 of C4.

    The box head takes the spatial mean of its output, the mask head the output itself. `stride`
    is 1 on 7x7 RoIs (the papers) or 2 on 14x14 RoIs (detectron2).
    """

    blocks: int
    width: int
    channels: int
    groups: int = 1
    stride: Literal[1, 2] = 2
    stride_in_1x1: bool = False
    norm: NormKind = "batch_norm"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        counts(
            "roi stage",
            blocks=self.blocks,
            width=self.width,
            channels=self.channels,
            groups=self.groups,
        )
        not_negative("roi stage", norm_eps=self.norm_eps)
        require(
            self.width % self.groups == 0,
            f"roi stage: {self.groups} groups do not divide the width {self.width}",
        )
        require_groups("roi stage", self.norm, self.width, self.channels)
