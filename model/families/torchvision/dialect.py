"""torchvision's checkpoints: `maskrcnn_*`, `fasterrcnn_*`, `keypointrcnn_*`, and the like."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor
from torchvision.models.detection import (
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
    KeypointRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)

from model.errors import CheckpointError
from model.families.dialect import Assumption, Reading, Source
from model.families.shapes import Shapes
from model.families.torchvision.body import BodyReading, read_body
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

# Published names of torchvision before 0.13 had no index for the layer within a block.
_LEGACY = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
_LEGACY_MASK = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)$")
_PREFIXES = (
    ("backbone.body.", "body."),
    ("backbone.fpn.", "fpn."),
    ("rpn.head.", "rpn.head."),
    ("roi_heads.box_head.", "box_head.trunk."),
    ("roi_heads.box_predictor.", "box_head."),
    ("roi_heads.mask_head.", "mask_head.convs."),
    ("roi_heads.mask_predictor.", "mask_head.predictor."),
    ("roi_heads.keypoint_head.", "keypoint_head.convs."),
    ("roi_heads.keypoint_predictor.", "keypoint_head."),
)
# torchvision runs these files with epsilon 0.0 (`overwrite_eps`), whatever their keys say; the
# keypoint model's COCO_LEGACY is not among them.
_EPS_ZERO_WEIGHTS = (
    MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    KeypointRCNN_ResNet50_FPN_Weights.COCO_V1,
)
# This one's builder has smaller sides and fewer proposals; its shapes are those of its sibling.
_SMALL_MOBILENET = FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1
_COCO_CLASSES = 91
_COCO_PERSON = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.meta


@dataclass(frozen=True, slots=True)
class TorchvisionDialect:
    """See the module docstring; implements `Dialect`."""

    name: str = "torchvision"
    landmark: str = "roi_heads.box_predictor.cls_score.weight"
    config_names: tuple[str, ...] = ()

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether torchvision's box predictor and RPN are there under its names."""
        return self.landmark in tensors and any(n.startswith("rpn.head.") for n in tensors)

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Old names to new ones."""
        modern = {_modern(name): tensor for name, tensor in tensors.items()}
        if len(modern) < len(tensors):
            raise CheckpointError(
                f"{path}: holds tensors twice, under their old and new names; remove the old ones"
            )
        return modern

    def original(self, name: str, spec: ModelSpec) -> str:
        """Map the network's name to torchvision's."""
        for theirs, ours in sorted(_PREFIXES, key=lambda pair: -len(pair[1])):
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read widths, depths and counts off the shapes; the rest is torchvision's default."""
        shapes = Shapes(source.path, {n: tuple(t.shape) for n, t in tensors.items()})
        eps = 0.0 if any(_is(source.sha256, w.url) for w in _EPS_ZERO_WEIGHTS) else 1e-5
        is_small = _is(source.sha256, _SMALL_MOBILENET.url)
        body = read_body(shapes, eps)
        channels = shapes.of("backbone.fpn.layer_blocks.0.0.weight", 4)[0]
        mask = _mask_head(shapes, body.strides, eps)
        keypoint = _keypoint_head(shapes, body.strides)
        spec = ModelSpec(
            dialect=self.name,
            architecture=_architecture(body.name, shapes, mask, keypoint),
            body=body.spec,
            classes=_classes(shapes, keypoint),
            fpn=FpnSpec(channels, _norm_kind(shapes, "backbone.fpn.inner_blocks.0.1."), eps),
            preprocess=PreprocessSpec(320, 640) if is_small else PreprocessSpec(),
            anchors=_anchors(shapes, body.strides),
            rpn=_rpn(shapes, body, mask is None and keypoint is None, is_small),
            box=_box_head(shapes, body.strides, channels, eps),
            mask=mask,
            keypoint=keypoint,
        )
        return Reading(spec, _assumptions(spec, is_small))


DIALECT = TorchvisionDialect()


def _modern(name: str) -> str:
    match = _LEGACY_MASK.match(name)
    if match:
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    for pattern, replacement in _LEGACY:
        name = pattern.sub(replacement, name)
    return name


def _is(sha256: str, url: str) -> bool:
    """Whether the file is a published one, whose name holds the start of its hash."""
    match = re.search(r"-([0-9a-f]{8})\.pth$", url)
    return match is not None and sha256.startswith(match[1])


def _norm_kind(shapes: Shapes, prefix: str) -> Literal["none", "batch_norm"]:
    return "batch_norm" if shapes.has(prefix) else "none"


def _anchors(shapes: Shapes, strides: tuple[int, ...]) -> AnchorSpec:
    """Three anchors per cell are one size per level; fifteen are all five sizes everywhere."""
    per_cell = shapes.of("rpn.head.cls_logits.weight", 4)[0]
    levels = len(strides) + 1
    if per_cell == 15:
        return AnchorSpec(
            ((32.0, 64.0, 128.0, 256.0, 512.0),) * levels, ((0.5, 1.0, 2.0),) * levels
        )
    # Other counts are not torchvision's; the ratios only hold the place of what must be said.
    ratios = (0.5, 1.0, 2.0) if per_cell == 3 else (1.0,) * per_cell
    sizes = tuple((float(8 * s),) for s in (*strides, 2 * strides[-1]))
    return AnchorSpec(sizes, (ratios,) * levels)


def _rpn(shapes: Shapes, body: BodyReading, boxes_only: bool, is_small: bool) -> RpnSpec:
    depth = shapes.count(r"rpn\.head\.conv\.(\d+)\.")
    if not depth:
        shapes.of("rpn.head.conv.0.0.weight", 4)
    top = 150 if is_small else 1000
    # torchvision's builders of Faster R-CNN on a MobileNet, and only they, have this threshold.
    is_builders = boxes_only and isinstance(body.spec, MobileNetV3Spec)
    return RpnSpec((0,) * depth, top, top, score_threshold=0.05 if is_builders else 0.0)


def _classes(shapes: Shapes, keypoint: KeypointHeadSpec | None) -> ClassSpec:
    count = shapes.of(DIALECT.landmark, 2)[0]
    if count == _COCO_CLASSES:
        return ClassSpec(tuple(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]))
    if count == 2 and keypoint is not None and keypoint.names == COCO_KEYPOINTS:
        return ClassSpec(tuple(_COCO_PERSON["categories"]))
    return ClassSpec(("__background__", *(f"class_{i}" for i in range(1, count))))


def _pooler(strides: tuple[int, ...], output_size: int) -> PoolerSpec:
    return PoolerSpec(output_size=output_size, strides=strides)


def _box_head(shapes: Shapes, strides: tuple[int, ...], channels: int, eps: float) -> BoxHeadSpec:
    count = shapes.count(r"roi_heads\.box_head\.(\d+)\.\d")
    convs = tuple(shapes.of(f"roi_heads.box_head.{i}.0.weight", 4)[0] for i in range(count))
    first = f"roi_heads.box_head.{count + 1 if convs else 'fc6'}.weight"
    values = shapes.of(first, 2)[1]
    # `TwoMLPHead` always has two; after convolutions there may be any number.
    number = r"(\d+)" if convs else "fc([67])"
    linear = re.compile(rf"(roi_heads\.box_head\.{number})\.(?:weight|bias)")
    found = {int(m[2]): m[1] for n in shapes.by_name if (m := linear.fullmatch(n))}
    inputs = convs[-1] if convs else channels
    side = math.isqrt(values // inputs)
    if side * side * inputs != values:
        raise CheckpointError(
            f"{shapes.path}: tensor '{first}' takes {values} values; expected a square grid of "
            f"{inputs} channels"
        )
    widths = tuple(shapes.of(f"{found[i]}.weight", 2)[0] for i in sorted(found))
    return BoxHeadSpec(_pooler(strides, side), convs, widths, norm_eps=eps)


def _mask_head(shapes: Shapes, strides: tuple[int, ...], eps: float) -> MaskHeadSpec | None:
    if not shapes.has("roi_heads.mask_"):
        return None
    count = shapes.count(r"roi_heads\.mask_head\.(\d+)\.")
    return MaskHeadSpec(
        pooler=_pooler(strides, 14),
        conv_widths=tuple(
            shapes.of(f"roi_heads.mask_head.{i}.0.weight", 4)[0] for i in range(count)
        ),
        deconv_width=shapes.of("roi_heads.mask_predictor.conv5_mask.weight", 4)[1],
        norm=_norm_kind(shapes, "roi_heads.mask_head.0.1."),
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
    names: tuple[str, ...] = COCO_KEYPOINTS
    if keypoints != len(names):
        names = tuple(f"keypoint_{i}" for i in range(keypoints))
    return KeypointHeadSpec(_pooler(strides, 14), widths, names)


def _architecture(
    body: str, shapes: Shapes, mask: MaskHeadSpec | None, keypoint: KeypointHeadSpec | None
) -> str:
    """As torchvision names it; it has no name for masks and keypoints together."""
    heads = "mask_keypoint" if mask and keypoint else "keypoint" if keypoint else "mask"
    second = "_v2" if shapes.has("roi_heads.box_head.0.0.") else ""
    family = heads if mask or keypoint else "faster"
    return f"{family}rcnn_{body}_fpn{second}"


def _assumptions(spec: ModelSpec, is_small: bool) -> tuple[Assumption, ...]:
    """What the weights do not tell, nor the hash of a published file."""
    box, pre, names = spec.box, spec.preprocess, spec.classes.names
    shown = "COCO's 91" if len(names) == _COCO_CLASSES else f"{names[1]} … {names[-1]}"
    rows = [
        ("score threshold", f"{box.score_threshold:g}", "--score-threshold", "box.score_threshold"),
        ("NMS IoU", f"{box.nms_iou:g}", "--nms-iou", "box.nms_iou"),
        ("detections per image", str(box.detections), "--detections", "box.detections"),
        ("class names", shown, "--names", "classes.names"),
    ]
    if spec.body.norm_eps != 0.0:
        eps = f"{spec.body.norm_eps:g}"
        rows.append(("BatchNorm epsilon", eps, "--norm-eps", "body.norm_eps"))
    if not is_small:
        rows += [
            ("short side", str(pre.short_side), "--short-side", "preprocess.short_side"),
            ("long side", str(pre.long_side), "--long-side", "preprocess.long_side"),
        ]
    if isinstance(spec.body, MobileNetV3Spec) and not is_small:
        threshold = f"{spec.rpn.score_threshold:g}"
        rows.append(("RPN score threshold", threshold, "--spec", "rpn.score_threshold"))
    if spec.keypoint is not None:
        keypoints = spec.keypoint.names
        named = "COCO's 17" if keypoints == COCO_KEYPOINTS else f"{keypoints[0]} … {keypoints[-1]}"
        rows.append(("keypoint names", named, "--spec", "keypoint.names"))
    rest = Assumption("all else as torchvision's builders have it:", _rest(spec), "--spec", "")
    return (*(Assumption(*row) for row in rows), *_anchor_assumptions(spec.anchors), rest)


def _rest(spec: ModelSpec) -> str:
    """What hardly anybody changes, in one line; a model that did needs it said."""
    pooler, rpn = spec.box.pooler, spec.rpn
    parts = ["no dilation", f"sampling ratio {pooler.sampling_ratio}"]
    if spec.mask is not None:
        parts.append(f"mask pool {spec.mask.pooler.output_size}")
    if spec.keypoint is not None:
        parts.append(f"keypoint pool {spec.keypoint.pooler.output_size}")
    parts += [
        f"RPN {rpn.pre_nms} → NMS {rpn.nms_iou:g} → {rpn.post_nms}",
        "box weights " + "/".join(f"{w:g}" for w in spec.box.box_weights),
        "ImageNet mean and std",
    ]
    return ", ".join(parts)


def _anchor_assumptions(anchors: AnchorSpec) -> tuple[Assumption, ...]:
    unknown = anchors.per_cell not in (3, 15)
    sizes = ", ".join("/".join(f"{s:g}" for s in level) for level in anchors.sizes)
    ratios = "/".join(f"{r:g}" for r in anchors.ratios[0])
    if unknown:
        sizes = ratios = f"of {anchors.per_cell} anchors per cell"
    return (
        Assumption("anchor sizes", sizes, "--spec", "anchors.sizes", unknown),
        Assumption("anchor ratios", ratios, "--spec", "anchors.ratios", unknown),
    )
