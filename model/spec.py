"""`ModelSpec`: everything that decides the network's output, in one frozen tree without torch.

A checkpoint dialect fills it in, the network is built from it, and it travels as JSON inside
every exported file, so that an artifact needs no second file to be run correctly.

Coordinates are continuous pixels, x to the right and y down; `xyxy` means x0, y0, x1, y1.
"Canvas" is the resized and padded image that the network sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from model.spec_checks import MOST, counts, in_unit_interval, not_negative, positive, require


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """From a decoded image to the canvas.

    `mean` and `std` are in the graph's value range and channel order. `size_divisor` 1 means
    that the canvas is the resized image itself.
    """

    short_side: int = 800
    long_side: int = 1333
    interpolation: Literal["bilinear", "pillow-bilinear"] = "bilinear"
    size_rounding: Literal["floor", "round"] = "floor"
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_range: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size_divisor: int = 32

    def __post_init__(self) -> None:
        require(
            1 <= self.short_side <= self.long_side <= 16384,
            f"preprocess: expected 1 <= short_side <= long_side <= 16384, got short_side "
            f"{self.short_side} and long_side {self.long_side}; set --short-side and --long-side",
        )
        require(
            1 <= self.size_divisor <= 1024,
            f"preprocess: size_divisor must be from 1 to 1024, got {self.size_divisor}",
        )
        positive("preprocess", std=self.std, value_range=(self.value_range,))
        require(
            all(map(math.isfinite, self.mean)), f"preprocess: mean must be finite, got {self.mean}"
        )


def _require_outputs(outputs: tuple[int, ...], stages: int) -> None:
    require(
        len(outputs) >= 1
        and list(outputs) == sorted(set(outputs))
        and 0 <= outputs[0] <= outputs[-1] < stages,
        f"body: outputs must rise within 0 to {stages - 1}, got {outputs}",
    )


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """A ResNet or ResNeXt body; widths are read off the weights.

    `widths` are the channels of each stage's 3x3 convolution, `channels` those of its output.
    """

    blocks: tuple[int, ...]
    block: Literal["basic", "bottleneck"]
    stem_channels: int
    widths: tuple[int, ...]
    channels: tuple[int, ...]
    groups: int = 1
    stride_in_1x1: bool = False
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    norm: Literal["batch_norm"] = "batch_norm"
    norm_eps: float = 1e-5
    outputs: tuple[int, ...] = (0, 1, 2, 3)
    kind: Literal["resnet"] = "resnet"

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
        )
        not_negative("body", norm_eps=self.norm_eps)
        _require_outputs(self.outputs, len(self.blocks))
        require(
            all(width % self.groups == 0 for width in self.widths),
            f"body: {self.groups} groups do not divide the widths {self.widths}",
        )


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
            f"body: expected one of channels per output, got {len(self.channels)} and "
            f"{len(self.outputs)}",
        )


@dataclass(frozen=True, slots=True)
class FpnSpec:
    """A feature pyramid over the body's outputs plus one level by subsampling the last."""

    channels: int = 256
    norm: Literal["none", "batch_norm"] = "none"
    norm_eps: float = 1e-5
    extra_level: Literal["pool", "none"] = "pool"

    def __post_init__(self) -> None:
        counts("fpn", channels=self.channels)
        not_negative("fpn", norm_eps=self.norm_eps)


@dataclass(frozen=True, slots=True)
class AnchorSpec:
    """Anchors per pyramid level.

    `stride_rule` "canvas" divides the canvas by the level's grid (torchvision), "nominal" uses
    the level's stride (detectron2). `order` names the slower index within a cell.
    """

    sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[tuple[float, ...], ...] = ((0.5, 1.0, 2.0),) * 5
    order: Literal["ratio-major", "size-major"] = "ratio-major"
    rounded: bool = True
    offset: float = 0.0
    stride_rule: Literal["canvas", "nominal"] = "canvas"

    def __post_init__(self) -> None:
        require(
            len(self.sizes) == len(self.ratios),
            f"anchors: expected one tuple of ratios per level, got {len(self.sizes)} levels of "
            f"sizes and {len(self.ratios)} of ratios",
        )
        counts = {len(s) * len(r) for s, r in zip(self.sizes, self.ratios, strict=True)}
        require(
            len(counts) == 1 and counts.pop() > 0,
            "anchors: every level needs the same positive number of anchors per cell",
        )
        for sizes, ratios in zip(self.sizes, self.ratios, strict=True):
            positive("anchors", sizes=sizes, ratios=ratios)
        not_negative("anchors", offset=self.offset)

    @property
    def per_cell(self) -> int:
        """Anchors per grid cell, the same on every level."""
        return len(self.sizes[0]) * len(self.ratios[0])


@dataclass(frozen=True, slots=True)
class RpnSpec:
    """The region proposal network and its filters; the threshold is on sigmoid probabilities."""

    conv_depth: int = 1
    pre_nms: int = 1000
    post_nms: int = 1000
    nms_iou: float = 0.7
    min_size: float = 1e-3
    min_size_inclusive: bool = True
    score_threshold: float = 0.0
    box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        counts("rpn", conv_depth=self.conv_depth, pre_nms=self.pre_nms, post_nms=self.post_nms)
        in_unit_interval("rpn", nms_iou=self.nms_iou, score_threshold=self.score_threshold)
        not_negative("rpn", min_size=self.min_size)
        positive("rpn", box_weights=self.box_weights)


@dataclass(frozen=True, slots=True)
class PoolerSpec:
    """How an RoI becomes a fixed grid, and from which pyramid level.

    Level k = floor(canonical_level + log2(sqrt(w*h)/canonical_size + inner_eps) + outer_eps),
    clamped to the levels given (Feature Pyramid Networks, eq. 1). `strides` has one entry per
    pooled level.
    """

    output_size: int = 7
    sampling_ratio: int = 2
    aligned: bool = False
    strides: tuple[int, ...] = (4, 8, 16, 32)
    canonical_size: float = 224.0
    canonical_level: int = 4
    inner_eps: float = 0.0
    outer_eps: float = 1e-6
    kind: Literal["roi_align"] = "roi_align"

    def __post_init__(self) -> None:
        counts("pooler", output_size=self.output_size, strides=self.strides)
        require(len(self.strides) >= 1, "pooler: expected at least one stride")
        positive("pooler", canonical_size=(self.canonical_size,))
        not_negative(
            "pooler",
            sampling_ratio=self.sampling_ratio,
            inner_eps=self.inner_eps,
            outer_eps=self.outer_eps,
        )


@dataclass(frozen=True, slots=True)
class BoxHeadSpec:
    """The box head: convolutions, then fully connected layers, then scores and deltas.

    `candidates` is the number of (proposal, class) pairs that reach NMS; `candidates_cut` in
    the outputs says when that was too few.
    """

    pooler: PoolerSpec = field(default_factory=PoolerSpec)
    conv_widths: tuple[int, ...] = ()
    fc_widths: tuple[int, ...] = (1024, 1024)
    norm_eps: float = 1e-5
    class_agnostic: bool = False
    background: Literal["first", "last"] = "first"
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    detections: int = 100
    min_size: float = 1e-2
    min_size_inclusive: bool = True
    candidates: int = 2000

    def __post_init__(self) -> None:
        require(
            1 <= self.detections <= self.candidates <= MOST,
            f"box head: expected 1 <= detections <= candidates <= {MOST}, got {self.detections} "
            f"and {self.candidates}; set --detections and --candidates",
        )
        in_unit_interval("box head", score_threshold=self.score_threshold, nms_iou=self.nms_iou)
        require(len(self.fc_widths) >= 1, "box head: expected at least one of fc_widths")
        counts("box head", conv_widths=self.conv_widths, fc_widths=self.fc_widths)
        not_negative("box head", norm_eps=self.norm_eps, min_size=self.min_size)
        positive("box head", box_weights=self.box_weights)


@dataclass(frozen=True, slots=True)
class MaskHeadSpec:
    """The mask head and the paste rule.

    `paste` "integer" is torchvision's (pad one cell, grow, truncate to int64), "float" is
    detectron2's (sample at pixel centres inside the float box).
    """

    pooler: PoolerSpec = field(default_factory=lambda: PoolerSpec(output_size=14))
    conv_widths: tuple[int, ...] = (256, 256, 256, 256)
    deconv_width: int = 256
    norm: Literal["none", "batch_norm"] = "none"
    norm_eps: float = 1e-5
    class_agnostic: bool = False
    paste: Literal["integer", "float"] = "integer"
    threshold: float = 0.5
    threshold_inclusive: bool = False

    def __post_init__(self) -> None:
        counts("mask head", conv_widths=self.conv_widths, deconv_width=self.deconv_width)
        not_negative("mask head", norm_eps=self.norm_eps)
        require(
            0.0 < self.threshold < 1.0,
            f"mask head: threshold must lie between 0 and 1, got {self.threshold}",
        )

    @property
    def side(self) -> int:
        """Side of the square mask, M."""
        return 2 * self.pooler.output_size


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """Class names by the label that the model emits, and the data set's id of each label.

    `names[0]` is the background where `BoxHeadSpec.background` is "first". `dataset_ids` is
    empty where a label is its own id.
    """

    names: tuple[str, ...]
    dataset_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(
            not self.dataset_ids or len(self.dataset_ids) == len(self.names),
            f"classes: expected one dataset id per name, got {len(self.dataset_ids)} ids and "
            f"{len(self.names)} names",
        )

    def dataset_id(self, label: int) -> int:
        """Category id of `label` in the data set that the model was trained on."""
        return self.dataset_ids[label] if self.dataset_ids else label


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The whole model; see the module docstring.

    `fpn` None means that the heads read the body's outputs themselves (C4, DC5).
    """

    dialect: str
    architecture: str
    body: ResNetSpec | MobileNetV3Spec
    classes: ClassSpec
    fpn: FpnSpec | None = field(default_factory=FpnSpec)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    anchors: AnchorSpec = field(default_factory=AnchorSpec)
    rpn: RpnSpec = field(default_factory=RpnSpec)
    box: BoxHeadSpec = field(default_factory=BoxHeadSpec)
    mask: MaskHeadSpec | None = None

    def __post_init__(self) -> None:
        require(
            self.num_foreground >= 1, "classes: expected at least one class beside the background"
        )
        most = self.rpn.post_nms * self.num_foreground
        require(
            self.box.detections <= most,
            f"box head: {self.box.detections} detections are more than {self.rpn.post_nms} "
            f"proposals of {self.num_foreground} classes can give ({most}); set --detections",
        )
        self._require_levels()

    def _require_levels(self) -> None:
        """Body, pyramid, anchors and poolers must speak of the same levels."""
        levels = len(self.body.outputs)
        poolers = [self.box.pooler] + ([] if self.mask is None else [self.mask.pooler])
        for pooler in poolers:
            require(
                len(pooler.strides) == levels,
                f"pooler: expected a stride for each of {levels} levels, got {pooler.strides}",
            )
        expected = levels + (self.fpn is not None and self.fpn.extra_level == "pool")
        require(
            len(self.anchors.sizes) == expected,
            f"anchors: expected sizes and ratios for {expected} levels, got "
            f"{len(self.anchors.sizes)}",
        )

    @property
    def num_foreground(self) -> int:
        """Number of classes without the background."""
        return len(self.classes.names) - (self.box.background == "first")
