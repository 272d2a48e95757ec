"""Build a `ModelSpec` from detectron2's settings and the shapes of its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from model.errors import CheckpointError
from model.families import coco
from model.families.detectron2 import norms
from model.families.detectron2.settings import Settings
from model.families.resnet import block_count, groups_of, read_stages
from model.families.shapes import Shapes
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    FpnSpec,
    KeypointHeadSpec,
    MaskHeadSpec,
    ModelSpec,
    PoolerSpec,
    PreprocessSpec,
    ResNetSpec,
    RoIStageSpec,
    RpnSpec,
)
from model.spec.body import NormKind
from model.spec.heads import COCO_KEYPOINTS

_BOX = "roi_heads.box_head"
_MASK = "roi_heads.mask_head"
_KEYPOINT = "roi_heads.keypoint_head"
_RES5 = "roi_heads.res5"
_LATERAL = re.compile(r"backbone\.fpn_lateral([0-9]{1,2})\.")
_NORM_EPS = 1e-5
_CANONICAL = {"canonical_size": 224.0, "canonical_level": 4, "inner_eps": 1e-8, "outer_eps": 0.0}
_STRICT: dict[str, tuple[object, ...]] = {
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN",),
    "MODEL.LOAD_PROPOSALS": (False,),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator",),
    "MODEL.RPN.HEAD_NAME": ("StandardRPNHead",),
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "MODEL.ROI_MASK_HEAD.NAME": ("MaskRCNNConvUpsampleHead",),
    "MODEL.ROI_KEYPOINT_HEAD.NAME": ("KRCNNConvDeconvUpsampleHead",),
    "TEST.AUG.ENABLED": (False,),
    **dict.fromkeys(norms.KEYS, tuple(norms.NORMS)),
}


def layout(shapes: Shapes) -> Literal["FPN", "C4", "DC5"]:
    """Which of detectron2's three R-CNNs has these names."""
    if shapes.has("backbone.bottom_up."):
        return "FPN"
    return "C4" if shapes.has(f"{_RES5}.") else "DC5"


def build_spec(shapes: Shapes, settings: Settings) -> ModelSpec:
    """Combine weights and settings.

    Raises:
        CheckpointError: they contradict each other, or cannot be exported.
    """
    return _Builder(shapes, settings).spec()


@dataclass(frozen=True, slots=True)
class _Builder:
    shapes: Shapes
    settings: Settings

    def spec(self) -> ModelSpec:
        for key, allowed in _STRICT.items():
            self.settings.require(key, *allowed)
        self._refuse_deformable()
        body = self._body()
        name = layout(self.shapes)
        self._require_layout(name, body)
        strides = tuple(body.stride(stage) for stage in body.outputs)
        mask, keypoint = self._mask(strides), self._keypoint(strides)
        return ModelSpec(
            dialect="detectron2",
            architecture=self._architecture(body, name),
            body=body,
            classes=self._classes(keypoint),
            fpn=self._fpn() if name == "FPN" else None,
            preprocess=self._preprocess(name, strides),
            anchors=self._anchors(name, len(strides)),
            rpn=self._rpn(),
            roi_stage=self._roi_stage(body) if name == "C4" else None,
            box=self._box(strides),
            mask=mask,
            keypoint=keypoint,
        )

    def _architecture(self, body: ResNetSpec, name: str) -> str:
        """The zoo's name, like `mask_rcnn_R_50_FPN`."""
        head = "mask_rcnn" if self.shapes.has(f"{_MASK}.") else "faster_rcnn"
        head = "keypoint_rcnn" if self.shapes.has(f"{_KEYPOINT}.") else head
        layers = body.depth + 3 * block_count(self.shapes, _RES5)
        per_group = body.widths[0] // body.groups
        resnet = f"X_{layers}_{body.groups}x{per_group}d" if body.groups > 1 else f"R_{layers}"
        return f"{head}_{resnet}_{name}"

    def _refuse_deformable(self) -> None:
        offsets = [n for n in self.shapes.by_name if "conv2_offset" in n]
        stages = self.settings["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]
        if offsets or any(stages if isinstance(stages, list | tuple) else [stages]):
            what = f"tensor '{offsets[0]}'" if offsets else "MODEL.RESNETS.DEFORM_ON_PER_STAGE"
            raise CheckpointError(
                f"{self.shapes.path}: deformable convolutions ({what}) cannot be exported; no "
                "target supports them"
            )

    def _require_layout(self, name: str, body: ResNetSpec) -> None:
        """The settings must use the features that the weights have."""
        names = [f"res{stage + 2}" for stage in body.outputs]
        heads, proposals = names, names
        if name == "FPN":
            heads = [f"p{stage + 2}" for stage in body.outputs]
            proposals = [*heads, f"p{body.outputs[-1] + 3}"]
            self.settings.require("MODEL.FPN.IN_FEATURES", names)
        self.settings.require(
            "MODEL.BACKBONE.NAME",
            "build_resnet_fpn_backbone" if name == "FPN" else "build_resnet_backbone",
        )
        self.settings.require("MODEL.ROI_HEADS.IN_FEATURES", heads)
        self.settings.require("MODEL.RPN.IN_FEATURES", proposals)
        self.settings.require(
            "MODEL.ROI_HEADS.NAME", "Res5ROIHeads" if name == "C4" else "StandardROIHeads"
        )

    def _norm(self, conv: str, key: str = norms.BODY_KEY) -> NormKind:
        return norms.NormReader(self.shapes, self.settings).after(conv, key)

    def _body(self) -> ResNetSpec:
        shapes = self.shapes
        prefix = "backbone.bottom_up." if layout(shapes) == "FPN" else "backbone."
        count = shapes.count(rf"{prefix.replace('.', '[.]')}res(\d)[.]")
        names = [f"{prefix}res{i + 2}" for i in range(count)]
        if not names or not all(shapes.has(f"{name}.") for name in names):
            raise CheckpointError(
                f"{shapes.path}: no ResNet under '{prefix}res2.'; other backbones of detectron2 "
                "(RegNet, ViT, Swin, …) cannot be exported"
            )
        stages = read_stages(shapes, names)
        dilation = self.settings.count("MODEL.RESNETS.RES5_DILATION")
        stride_in_1x1 = self.settings.flag("MODEL.RESNETS.STRIDE_IN_1X1")
        first = self._fpn_stages()[0] - 2 if layout(shapes) == "FPN" else count - 1
        return ResNetSpec(
            stem_channels=shapes.of(f"{prefix}stem.conv1.weight", 4)[0],
            stride_in_1x1=stride_in_1x1 and stages.block == "bottleneck",
            dilations=(1, 1, 1, dilation) if count == 4 else (1,) * count,
            norm=self._norm(f"{prefix}stem.conv1"),
            norm_eps=_NORM_EPS,
            outputs=tuple(range(first, count)),
            **stages._asdict(),
        )

    def _fpn_stages(self) -> list[int]:
        """The ResNet stages that the pyramid's lateral convolutions read, numbered from 2."""
        matches = map(_LATERAL.match, self.shapes.by_name)
        stages = sorted({int(match[1]) for match in matches if match})
        if not stages:
            raise CheckpointError(
                f"{self.shapes.path}: no pyramid over the ResNet; expected tensors such as "
                "'backbone.fpn_lateral2.weight'"
            )
        return stages

    def _fpn(self) -> FpnSpec:
        lateral = f"backbone.fpn_lateral{self._fpn_stages()[0]}"
        return FpnSpec(
            channels=self.shapes.of(f"{lateral}.weight", 4)[0],
            norm=self._norm(lateral, "MODEL.FPN.NORM"),
            norm_eps=_NORM_EPS,
            fuse="average" if self.settings["MODEL.FPN.FUSE_TYPE"] == "avg" else "sum",
        )

    def _preprocess(self, name: str, strides: tuple[int, ...]) -> PreprocessSpec:
        mean = self.settings.numbers("MODEL.PIXEL_MEAN", 3)
        std = self.settings.numbers("MODEL.PIXEL_STD", 3)
        short = self._at_least_1("INPUT.MIN_SIZE_TEST", "set --short-side")
        long = self._at_least_1("INPUT.MAX_SIZE_TEST", "set --long-side")
        return PreprocessSpec(
            short_side=min(short, long),
            long_side=long,
            resize_rule="detectron2",
            interpolation="pillow-bilinear",
            channel_order="bgr" if self.settings["INPUT.FORMAT"] == "BGR" else "rgb",
            value_range=255.0,
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            size_divisor=strides[-1] if name == "FPN" else 1,
        )

    def _at_least_1(self, key: str, remedy: str) -> int:
        value = self.settings.count(key)
        if value < 1:
            raise CheckpointError(
                f"{self.settings.source}: {key}: expected 1 or more, got {value}; {remedy}"
            )
        return value

    def _detections(self) -> int:
        """At most one detection per (proposal, class) pair."""
        detections = self._at_least_1("TEST.DETECTIONS_PER_IMAGE", "set --detections")
        proposals = self.settings.count("MODEL.RPN.POST_NMS_TOPK_TEST")
        return min(detections, proposals * max(self._num_classes(), 1))

    def _anchors(self, name: str, levels: int) -> AnchorSpec:
        levels += name == "FPN"
        return AnchorSpec(
            sizes=self.settings.rows("MODEL.ANCHOR_GENERATOR.SIZES", levels),
            ratios=self.settings.rows("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", levels),
            order="size-major",
            rounded=False,
            offset=self.settings.number("MODEL.ANCHOR_GENERATOR.OFFSET"),
            stride_rule="nominal",
        )

    def _rpn(self) -> RpnSpec:
        shapes, head = self.shapes, "proposal_generator.rpn_head.conv"
        widths = shapes.widths(f"{head}.conv{{}}", 4)
        weights = self.settings.numbers("MODEL.RPN.BBOX_REG_WEIGHTS", 4)
        return RpnSpec(
            conv_widths=widths or (shapes.of(f"{head}.weight", 4)[0],),
            pre_nms=self.settings.count("MODEL.RPN.PRE_NMS_TOPK_TEST"),
            post_nms=self.settings.count("MODEL.RPN.POST_NMS_TOPK_TEST"),
            nms_iou=self.settings.number("MODEL.RPN.NMS_THRESH"),
            min_size=self.settings.number("MODEL.PROPOSAL_GENERATOR.MIN_SIZE"),
            min_size_inclusive=False,
            box_weights=(weights[0], weights[1], weights[2], weights[3]),
        )

    def _roi_stage(self, body: ResNetSpec) -> RoIStageSpec:
        middle = self.shapes.of(f"{_RES5}.0.conv2.weight", 4)
        return RoIStageSpec(
            blocks=block_count(self.shapes, _RES5),
            width=middle[0],
            channels=self.shapes.of(f"{_RES5}.0.conv3.weight", 4)[0],
            groups=groups_of(middle),
            stride=2,
            stride_in_1x1=body.stride_in_1x1,
            norm=self._norm(f"{_RES5}.0.conv1"),
            norm_eps=_NORM_EPS,
        )

    def _pooler(self, head: str, strides: tuple[int, ...], side: int) -> PoolerSpec:
        key = f"MODEL.{head}.POOLER_TYPE"
        self.settings.require(key, "ROIAlignV2", "ROIAlign", "ROIPool")
        ratio = max(self.settings.count(f"MODEL.{head}.POOLER_SAMPLING_RATIO"), 0)
        pooler = self.settings[key]
        return PoolerSpec(
            output_size=side,
            sampling_ratio=ratio if pooler != "ROIPool" else 1,
            aligned=pooler == "ROIAlignV2",
            strides=strides,
            kind="roi_pool" if pooler == "ROIPool" else "roi_align",
            **_CANONICAL,  # type: ignore[arg-type]
        )

    def _resolution(self, head: str) -> int:
        return self.settings.count(f"MODEL.{head}.POOLER_RESOLUTION")

    def _box(self, strides: tuple[int, ...]) -> BoxHeadSpec:
        shapes, settings = self.shapes, self.settings
        weights = settings.numbers("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", 4)
        deltas = shapes.of("roi_heads.box_predictor.bbox_pred.weight", 2)[0]
        detections = self._detections()
        return BoxHeadSpec(
            pooler=self._pooler("ROI_BOX_HEAD", strides, self._resolution("ROI_BOX_HEAD")),
            conv_widths=shapes.widths(f"{_BOX}.conv{{}}", 4, first=1),
            fc_widths=shapes.widths(f"{_BOX}.fc{{}}", 2, first=1),
            norm=self._norm(f"{_BOX}.conv1", "MODEL.ROI_BOX_HEAD.NORM"),
            norm_eps=_NORM_EPS,
            class_agnostic=self._is_agnostic("ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", deltas == 4),
            background="last",
            scoring="sigmoid" if settings.flag("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE") else "softmax",
            box_weights=(weights[0], weights[1], weights[2], weights[3]),
            score_threshold=settings.number("MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
            nms_iou=settings.number("MODEL.ROI_HEADS.NMS_THRESH_TEST"),
            detections=detections,
            min_size=0.0,
            to_image="clip",
            candidates=max(2000, 4 * detections),
        )

    def _is_agnostic(self, name: str, by_weights: bool) -> bool:
        """Whether all classes share one output; with one class there is no difference."""
        if self._num_classes() == 1:
            return False
        key = f"MODEL.{name}"
        if key in self.settings.configured:
            self.settings.require(key, by_weights)
        return by_weights

    def _mask(self, strides: tuple[int, ...]) -> MaskHeadSpec | None:
        shapes = self.shapes
        self._require_head("MODEL.MASK_ON", f"{_MASK}.")
        if not shapes.has(f"{_MASK}."):
            return None
        # C4 pools masks like boxes; the mask head's resolution is not used.
        is_c4 = layout(shapes) == "C4"
        head = "ROI_BOX_HEAD" if is_c4 else "ROI_MASK_HEAD"
        outputs = shapes.of(f"{_MASK}.predictor.weight", 4)[0]
        return MaskHeadSpec(
            pooler=self._pooler(head, strides, self._resolution(head)),
            conv_widths=shapes.widths(f"{_MASK}.mask_fcn{{}}", 4, first=1),
            deconv_width=shapes.of(f"{_MASK}.deconv.weight", 4)[1],
            norm=self._norm(f"{_MASK}.mask_fcn1", "MODEL.ROI_MASK_HEAD.NORM"),
            norm_eps=_NORM_EPS,
            class_agnostic=self._is_agnostic("ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", outputs == 1),
            paste="float",
            threshold_inclusive=True,
        )

    def _keypoint(self, strides: tuple[int, ...]) -> KeypointHeadSpec | None:
        shapes = self.shapes
        self._require_head("MODEL.KEYPOINT_ON", f"{_KEYPOINT}.")
        if not shapes.has(f"{_KEYPOINT}."):
            return None
        count = shapes.of(f"{_KEYPOINT}.score_lowres.weight", 4)[1]
        side = self._resolution("ROI_KEYPOINT_HEAD")
        return KeypointHeadSpec(
            pooler=self._pooler("ROI_KEYPOINT_HEAD", strides, side),
            conv_widths=shapes.widths(f"{_KEYPOINT}.conv_fcn{{}}", 4, first=1),
            names=coco.keypoints(count),
            score="softmax",
        )

    def _require_head(self, key: str, prefix: str) -> None:
        has_head = self.shapes.has(prefix)
        if key in self.settings.configured and self.settings.flag(key) != has_head:
            raise CheckpointError(
                f"{self.shapes.path}: {'has' if has_head else 'lacks'} tensors under '{prefix}', "
                f"but {key} is {self.settings[key]}{self.settings.by_default(key)} in "
                f"{self.settings.source}; expected files of one model"
            )

    def _num_classes(self) -> int:
        return self.shapes.of("roi_heads.box_predictor.cls_score.weight", 2)[0] - 1

    def _classes(self, keypoint: KeypointHeadSpec | None) -> ClassSpec:
        count = self._num_classes()
        if "MODEL.ROI_HEADS.NUM_CLASSES" in self.settings.configured:
            self.settings.require("MODEL.ROI_HEADS.NUM_CLASSES", count)
        if count == 80:
            return coco.without_gaps()
        if count == 1 and keypoint is not None and keypoint.names == COCO_KEYPOINTS:
            return ClassSpec(("person",), (1,))
        return coco.numbered(count, background=False)
