"""Build a `ModelSpec` from the shapes of MMDetection's tensors and its training's metadata.

Other values are those of `configs/_base_/models/mask_rcnn_r50_fpn.py` and of the classes' own
defaults, MMDetection 2.0 to 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import CheckpointError
from model.families import coco
from model.families.mmdetection.meta import Training
from model.families.resnet import read_stages
from model.families.shapes import Shapes
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    FpnSpec,
    MaskHeadSpec,
    ModelSpec,
    PoolerSpec,
    PreprocessSpec,
    ResNetSpec,
    RpnSpec,
)
from model.spec.body import NormKind

BOX, MASK, RPN = "roi_head.bbox_head", "roi_head.mask_head", "rpn_head"
_RGB_MEAN, _RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CAFFE_STD = (1.0, 1.0, 1.0)
_FINEST_SCALE = 56.0


def build_spec(shapes: Shapes, training: Training) -> ModelSpec:
    """Combine weights and metadata.

    Raises:
        CheckpointError: a tensor is missing, or shapes contradict each other.
    """
    return _Builder(shapes, training).spec()


@dataclass(frozen=True, slots=True)
class _Builder:
    shapes: Shapes
    training: Training

    def spec(self) -> ModelSpec:
        body = self._body()
        strides = tuple(body.stride(stage) for stage in body.outputs)
        channels = self.shapes.of("neck.fpn_convs.0.conv.weight", 4)[0]
        mask = self._mask(strides)
        return ModelSpec(
            dialect="mmdetection",
            architecture=_architecture(body, mask),
            body=body,
            classes=self._classes(),
            fpn=FpnSpec(channels, self._norm("neck.fpn_convs.0")),
            preprocess=self._preprocess(body),
            anchors=self._anchors(strides),
            rpn=self._rpn(channels),
            box=self._box(strides, channels),
            mask=mask,
        )

    def _norm(self, module: str) -> NormKind:
        """The normalization in a module with a convolution, by its parameters' names."""
        if self.shapes.has(f"{module}.bn."):
            return "batch_norm"
        return "group_norm" if self.shapes.has(f"{module}.gn.") else "none"

    def _body(self) -> ResNetSpec:
        shapes = self.shapes
        count = shapes.count(r"backbone\.layer(\d+)\.")
        stages = read_stages(shapes, [f"backbone.layer{i + 1}" for i in range(count)])
        return ResNetSpec(
            stem_channels=shapes.of("backbone.conv1.weight", 4)[0],
            stride_in_1x1=bool(self.training.stride_in_1x1) and stages.block == "bottleneck",
            dilations=(1,) * count,
            norm="group_norm" if shapes.has("backbone.gn1.") else "batch_norm",
            outputs=self._outputs(stages.channels),
            **stages._asdict(),
        )

    def _outputs(self, channels: tuple[int, ...]) -> tuple[int, ...]:
        """The stages that feed the pyramid: consecutive, up to the last."""
        shapes = self.shapes
        laterals = shapes.count(r"neck\.lateral_convs\.(\d+)\.")
        outputs = shapes.count(r"neck\.fpn_convs\.(\d+)\.")
        names = [f"neck.lateral_convs.{i}.conv.weight" for i in range(max(laterals, 1))]
        inputs = tuple(shapes.of(name, 4)[1] for name in names)
        if outputs != laterals:
            raise CheckpointError(
                f"{shapes.path}: the pyramid has {outputs} outputs for {laterals} levels; extra "
                "levels by convolution cannot be exported; expected one output per level"
            )
        first = len(channels) - laterals
        if first < 0 or channels[first:] != inputs:
            raise CheckpointError(
                f"{shapes.path}: the pyramid's lateral convolutions take {inputs} channels; "
                f"expected those of the body's last stages, {channels}"
            )
        return tuple(range(first, len(channels)))

    def _preprocess(self, body: ResNetSpec) -> PreprocessSpec:
        """From the training's metadata, else as in the zoo for the body's style."""
        training = self.training
        order: Literal["rgb", "bgr"] = "bgr" if body.stride_in_1x1 else "rgb"
        order = training.channel_order or order
        mean = _RGB_MEAN if order == "rgb" else (_RGB_MEAN[2], _RGB_MEAN[1], _RGB_MEAN[0])
        return PreprocessSpec(
            resize_rule="mmdetection",
            interpolation="opencv-bilinear",
            channel_order=order,
            value_range=255.0,
            mean=training.mean or mean,
            std=training.std or (_RGB_STD if order == "rgb" else _CAFFE_STD),
        )

    def _anchors(self, strides: tuple[int, ...]) -> AnchorSpec:
        """One scale of 8 strides and three ratios; for other counts, placeholder ratios."""
        per_cell = self.shapes.of(f"{RPN}.rpn_reg.weight", 4)[0] // 4
        logits = self.shapes.of(f"{RPN}.rpn_cls.weight", 4)[0]
        if logits != per_cell:
            raise CheckpointError(
                f"{self.shapes.path}: tensor '{RPN}.rpn_cls.weight' has {logits} outputs for "
                f"{per_cell} anchors; expected one each, a sigmoid's (use_sigmoid=True)"
            )
        ratios = (0.5, 1.0, 2.0) if per_cell == 3 else (1.0,) * per_cell
        levels = (*strides, 2 * strides[-1])
        return AnchorSpec(
            tuple((8.0 * stride,) for stride in levels),
            (ratios,) * len(levels),
            rounded=False,
            stride_rule="nominal",
        )

    def _rpn(self, channels: int) -> RpnSpec:
        several = self.shapes.widths(f"{RPN}.rpn_conv.{{}}.conv", 4)
        widths = several or (self.shapes.of(f"{RPN}.rpn_conv.weight", 4)[0],)
        inputs = [channels, *widths]
        return RpnSpec(
            # A width of 0 keeps the number of inputs.
            tuple(0 if width == inputs[i] else width for i, width in enumerate(widths)),
            min_size=0.0,
            min_size_inclusive=False,
            size_clamp="both",
        )

    def _pooler(self, strides: tuple[int, ...], output_size: int) -> PoolerSpec:
        return PoolerSpec(
            output_size=output_size,
            sampling_ratio=0,
            aligned=True,
            strides=strides,
            canonical_size=_FINEST_SCALE,
            canonical_level=strides[0].bit_length() - 1,
            inner_eps=1e-6,
            outer_eps=0.0,
        )

    def _num_classes(self) -> int:
        return self.shapes.of(f"{BOX}.fc_cls.weight", 2)[0] - 1

    def _classes(self) -> ClassSpec:
        count, names = self._num_classes(), self.training.class_names
        known = coco.without_gaps()
        if names is not None and len(names) == count and names != known.names:
            return ClassSpec(names)
        if count == len(known.names):
            return known
        return coco.numbered(count, background=False)

    def _box(self, strides: tuple[int, ...], channels: int) -> BoxHeadSpec:
        shapes = self.shapes
        convs = shapes.widths(f"{BOX}.shared_convs.{{}}.conv", 4)
        linear = shapes.widths(f"{BOX}.shared_fcs.{{}}", 2)
        first = f"{BOX}.shared_fcs.0.weight" if linear else f"{BOX}.fc_cls.weight"
        side = shapes.pooled_side(first, convs[-1] if convs else channels)
        return BoxHeadSpec(
            pooler=self._pooler(strides, side),
            conv_widths=convs,
            fc_widths=linear,
            norm=self._norm(f"{BOX}.shared_convs.0"),
            class_agnostic=shapes.of(f"{BOX}.fc_reg.weight", 2)[0] == 4 != 4 * self._num_classes(),
            background="last",
            size_clamp="both",
            min_size=0.0,
        )

    def _mask(self, strides: tuple[int, ...]) -> MaskHeadSpec | None:
        if not self.shapes.has(f"{MASK}."):
            return None
        logits = self.shapes.of(f"{MASK}.conv_logits.weight", 4)[0]
        return MaskHeadSpec(
            pooler=self._pooler(strides, 14),
            conv_widths=self.shapes.widths(f"{MASK}.convs.{{}}.conv", 4),
            deconv_width=self.shapes.of(f"{MASK}.upsample.weight", 4)[1],
            norm=self._norm(f"{MASK}.convs.0"),
            class_agnostic=logits == 1 != self._num_classes(),
            paste="float",
            threshold_inclusive=True,
        )


def _architecture(body: ResNetSpec, mask: MaskHeadSpec | None) -> str:
    name = f"resnet{body.depth}"
    if body.groups > 1:
        name = f"resnext{body.depth}_{body.groups}x{body.widths[0] // body.groups}d"
    return f"{'fasterrcnn' if mask is None else 'maskrcnn'}_{name}_fpn"
