"""torchvision's checkpoints: `maskrcnn_*`, `fasterrcnn_*`, `keypointrcnn_*`, and the like."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor
from torchvision.models.detection import (
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
    KeypointRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)

from model.errors import CheckpointError
from model.families import coco
from model.families.assumptions import unknown_fields
from model.families.dialect import Reading, Source
from model.families.shapes import Shapes, replace_prefix
from model.families.torchvision.body import BodyReading, input_channels, norm_kind, read_body
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    FpnSpec,
    KeypointHeadSpec,
    MaskHeadSpec,
    MobileNetV3Spec,
    ModelSpec,
    PoolerSpec,
    PreprocessSpec,
    RpnSpec,
)
from model.spec.heads import COCO_KEYPOINTS

# Before 0.13, torchvision's names had no index of the layer within a block.
_LEGACY = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
_LEGACY_MASK = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)$")
_PREFIXES = {
    "body.": "backbone.body.",
    "fpn.": "backbone.fpn.",
    "box_head.trunk.": "roi_heads.box_head.",
    "box_head.": "roi_heads.box_predictor.",
    "mask_head.convs.": "roi_heads.mask_head.",
    "mask_head.predictor.": "roi_heads.mask_predictor.",
    "keypoint_head.convs.": "roi_heads.keypoint_head.",
    "keypoint_head.": "roi_heads.keypoint_predictor.",
}
# torchvision runs these files with epsilon 0.0 (`overwrite_eps`), but not the keypoint model's
# COCO_LEGACY.
_EPS_ZERO_WEIGHTS = (
    MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    KeypointRCNN_ResNet50_FPN_Weights.COCO_V1,
)
# Its builder has smaller sides and fewer proposals than that of the model with the same shapes.
_SMALL_MOBILENET = FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1
# What torchvision's code fixes.
_FIXED = (
    "preprocess.channel_order", "body.stride_in_1x1", "fpn.fuse", "anchors.offset",
    "*.pooler.aligned", "*.pooler.kind", "box.scoring",
)  # fmt: skip
_COCO_PERSON = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.meta


@dataclass(frozen=True, slots=True)
class TorchvisionDialect:
    """See the module docstring; implements `Dialect`."""

    name: str = "torchvision"
    landmark: str = "roi_heads.box_predictor.cls_score.weight"
    config_names: tuple[str, ...] = ()

    def recognizes(self, names: Collection[str]) -> bool:
        """Whether the names of torchvision's box predictor and RPN occur."""
        return self.landmark in names and any(n.startswith("rpn.head.") for n in names)

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Replace old names by current ones."""
        renamed = {_current_name(name): tensor for name, tensor in tensors.items()}
        if len(renamed) < len(tensors):
            raise CheckpointError(
                f"{path}: holds tensors twice, under their old and new names; remove the old ones"
            )
        return renamed

    def original(self, name: str, spec: ModelSpec) -> str:
        """Map the network's name to torchvision's."""
        return replace_prefix(name, _PREFIXES) or name

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read widths, depths and counts from the shapes; other values are torchvision's."""
        shapes = Shapes(source.path, {n: tuple(t.shape) for n, t in tensors.items()})
        eps = 0.0 if any(_is(source.sha256, w.url) for w in _EPS_ZERO_WEIGHTS) else 1e-5
        is_small = _is(source.sha256, _SMALL_MOBILENET.url)
        body, photo_channels = read_body(shapes, eps), input_channels(shapes)
        channels = shapes.of("backbone.fpn.layer_blocks.0.0.weight", 4)[0]
        mask = _mask_head(shapes, body.strides, eps)
        keypoint = _keypoint_head(shapes, body.strides)
        spec = ModelSpec(
            dialect=self.name,
            architecture=_architecture(body.name, shapes, mask, keypoint),
            body=body.spec,
            classes=_classes(shapes, keypoint),
            fpn=FpnSpec(channels, norm_kind(shapes, "backbone.fpn.", "inner_blocks.0.1."), eps),
            preprocess=_preprocess(photo_channels, is_small),
            anchors=_anchors(shapes, body.strides),
            rpn=_rpn(shapes, body, mask is None and keypoint is None, is_small),
            box=_box_head(shapes, body.strides, channels, eps),
            mask=mask,
            keypoint=keypoint,
        )
        known = list(_FIXED)
        if is_small:
            known += ["preprocess.*_side", "rpn.*"]
        if eps == 0.0:
            known.append("*.norm_eps")
        required = [] if spec.anchors.per_cell in (3, 15) else ["anchors.sizes", "anchors.ratios"]
        if photo_channels != 3:
            required += ["preprocess.mean", "preprocess.std"]
        return Reading(spec, unknown_fields(spec, known), required=tuple(required))


DIALECT = TorchvisionDialect()


def _current_name(name: str) -> str:
    match = _LEGACY_MASK.match(name)
    if match:
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    for pattern, replacement in _LEGACY:
        name = pattern.sub(replacement, name)
    return name


def _is(sha256: str, url: str) -> bool:
    """Whether the file is the published one at `url`, whose name has the start of its hash."""
    match = re.search(r"-([0-9a-f]{8})\.pth$", url)
    return match is not None and sha256.startswith(match[1])


def _preprocess(channels: int, is_small: bool) -> PreprocessSpec:
    spec = PreprocessSpec(320, 640) if is_small else PreprocessSpec()
    if channels == 3:
        return spec
    # No values are usual for other channels; the user must set them.
    return replace(spec, mean=(0.0,) * channels, std=(1.0,) * channels)


def _anchors(shapes: Shapes, strides: tuple[int, ...]) -> AnchorSpec:
    """Three anchors per cell are one size per level; fifteen are all five sizes everywhere."""
    per_cell = shapes.of("rpn.head.cls_logits.weight", 4)[0]
    levels = len(strides) + 1
    if per_cell == 15:
        return AnchorSpec(
            ((32.0, 64.0, 128.0, 256.0, 512.0),) * levels, ((0.5, 1.0, 2.0),) * levels
        )
    # Other counts are not torchvision's; these ratios are placeholders, which the user must set.
    ratios = (0.5, 1.0, 2.0) if per_cell == 3 else (1.0,) * per_cell
    sizes = tuple((float(8 * s),) for s in (*strides, 2 * strides[-1]))
    return AnchorSpec(sizes, (ratios,) * levels)


def _rpn(shapes: Shapes, body: BodyReading, boxes_only: bool, is_small: bool) -> RpnSpec:
    depth = shapes.count(r"rpn\.head\.conv\.(\d+)\.")
    if not depth:
        shapes.of("rpn.head.conv.0.0.weight", 4)
    top = 150 if is_small else 1000
    # Only torchvision's builders of Faster R-CNN on a MobileNet have this threshold.
    is_builders = boxes_only and isinstance(body.spec, MobileNetV3Spec)
    return RpnSpec((0,) * depth, top, top, score_threshold=0.05 if is_builders else 0.0)


def _classes(shapes: Shapes, keypoint: KeypointHeadSpec | None) -> ClassSpec:
    count = shapes.of(DIALECT.landmark, 2)[0]
    if count == len(coco.with_gaps().names):
        return coco.with_gaps()
    if count == 2 and keypoint is not None and keypoint.names == COCO_KEYPOINTS:
        return ClassSpec(tuple(_COCO_PERSON["categories"]))
    return coco.numbered(count - 1, background=True)


def _pooler(strides: tuple[int, ...], output_size: int) -> PoolerSpec:
    return PoolerSpec(output_size=output_size, strides=strides)


def _box_head(shapes: Shapes, strides: tuple[int, ...], channels: int, eps: float) -> BoxHeadSpec:
    count = shapes.count(r"roi_heads\.box_head\.(\d+)\.\d")
    convs = tuple(shapes.of(f"roi_heads.box_head.{i}.0.weight", 4)[0] for i in range(count))
    first = f"roi_heads.box_head.{count + 1 if convs else 'fc6'}.weight"
    side = shapes.pooled_side(first, convs[-1] if convs else channels)
    # `TwoMLPHead` always has two linear layers; after convolutions there may be any number.
    number = r"(\d+)" if convs else "fc([67])"
    pattern = re.compile(rf"(roi_heads\.box_head\.{number})\.(?:weight|bias)")
    linear = {int(m[2]): m[1] for n in shapes.by_name if (m := pattern.fullmatch(n))}
    widths = tuple(shapes.of(f"{linear[i]}.weight", 2)[0] for i in sorted(linear))
    norm = norm_kind(shapes, "roi_heads.box_head.", "0.1.") if convs else "batch_norm"
    return BoxHeadSpec(_pooler(strides, side), convs, widths, norm, eps)


def _mask_head(shapes: Shapes, strides: tuple[int, ...], eps: float) -> MaskHeadSpec | None:
    if not shapes.has("roi_heads.mask_"):
        return None
    return MaskHeadSpec(
        pooler=_pooler(strides, 14),
        conv_widths=shapes.widths("roi_heads.mask_head.{}.0", 4),
        deconv_width=shapes.of("roi_heads.mask_predictor.conv5_mask.weight", 4)[1],
        norm=norm_kind(shapes, "roi_heads.mask_head.", "0.1."),
        norm_eps=eps,
    )


def _keypoint_head(shapes: Shapes, strides: tuple[int, ...]) -> KeypointHeadSpec | None:
    if not shapes.has("roi_heads.keypoint_"):
        return None
    # Every other module of torchvision's sequence is a ReLU.
    count = shapes.count(r"roi_heads\.keypoint_head\.(\d+)\.")
    convs = [f"roi_heads.keypoint_head.{2 * i}.weight" for i in range(max(count, 1))]
    widths = tuple(shapes.of(name, 4)[0] for name in convs)
    keypoints = shapes.of("roi_heads.keypoint_predictor.kps_score_lowres.weight", 4)[1]
    return KeypointHeadSpec(_pooler(strides, 14), widths, coco.keypoints(keypoints))


def _architecture(
    body: str, shapes: Shapes, mask: MaskHeadSpec | None, keypoint: KeypointHeadSpec | None
) -> str:
    """Torchvision's name; it has none for masks and keypoints together."""
    heads = "mask_keypoint" if mask and keypoint else "keypoint" if keypoint else "mask"
    second = "_v2" if shapes.has("roi_heads.box_head.0.0.") else ""
    family = heads if mask or keypoint else "faster"
    return f"{family}rcnn_{body}_fpn{second}"
