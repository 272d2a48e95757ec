"""torchvision's checkpoints: `maskrcnn_*`, `fasterrcnn_*` and models built from its classes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)

from model.errors import CheckpointError
from model.families.dialect import Assumption, Reading
from model.families.torchvision_body import read_body
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    FpnSpec,
    MaskHeadSpec,
    MobileNetV3Spec,
    ModelSpec,
    PoolerSpec,
    ResNetSpec,
    RpnSpec,
)

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
)
# torchvision runs these two files with epsilon 0.0 (`overwrite_eps`), whatever their keys say.
_EPS_ZERO_WEIGHTS = (MaskRCNN_ResNet50_FPN_Weights.COCO_V1, FasterRCNN_ResNet50_FPN_Weights.COCO_V1)
_COCO_CLASSES = 91


@dataclass(frozen=True, slots=True)
class TorchvisionDialect:
    """See the module docstring; implements `Dialect`."""

    name: str = "torchvision"
    landmark: str = "roi_heads.box_predictor.cls_score.weight"

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether torchvision's box predictor and RPN are there under its names."""
        return self.landmark in tensors and any(n.startswith("rpn.head.") for n in tensors)

    def canonical(self, name: str) -> str:
        """Map a torchvision name, old or new, to the network's."""
        name = _modern(name)
        for theirs, ours in _PREFIXES:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return name

    def original(self, name: str) -> str:
        """Map the network's name to torchvision's."""
        for theirs, ours in sorted(_PREFIXES, key=lambda pair: -len(pair[1])):
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    def read(self, tensors: Mapping[str, Tensor], sha256: str, path: Path) -> Reading:
        """Read widths, depths and counts off the shapes; the rest is torchvision's default."""
        shapes = {_modern(n): tuple(t.shape) for n, t in tensors.items()}
        if any(n.startswith("roi_heads.keypoint") for n in shapes):
            raise CheckpointError(f"{path}: keypoint heads cannot be exported yet")
        eps, eps_said = _norm_eps(sha256)
        body = read_body(shapes, eps, path)
        strides = body.strides
        channels = _shape(shapes, "backbone.fpn.layer_blocks.0.0.weight", path)[0]
        anchors, anchors_assumed = _anchors(shapes, strides, path)
        classes, classes_assumed = _classes(shapes, path)
        mask = _mask_head(shapes, strides, eps)
        spec = ModelSpec(
            dialect=self.name,
            architecture=_architecture(body.name, shapes, mask),
            body=body.spec,
            classes=classes,
            fpn=FpnSpec(channels, _norm_kind(shapes, "backbone.fpn.inner_blocks.0.1"), eps),
            anchors=anchors,
            rpn=RpnSpec(conv_depth=_count(shapes, r"rpn\.head\.conv\.(\d+)\.0\.weight")),
            box=_box_head(shapes, strides, channels, eps, path),
            mask=mask,
        )
        assumed = [] if eps_said else [Assumption("BatchNorm epsilon", f"{eps:g}", "--norm-eps")]
        assumed += [
            Assumption("short side", str(spec.preprocess.short_side), "--short-side"),
            Assumption("long side", str(spec.preprocess.long_side), "--long-side"),
            Assumption("score threshold", f"{spec.box.score_threshold:g}", "--score-threshold"),
            Assumption("NMS IoU", f"{spec.box.nms_iou:g}", "--nms-iou"),
            Assumption("detections per image", str(spec.box.detections), "--detections"),
        ]
        return Reading(spec, (*assumed, *anchors_assumed, *classes_assumed))


DIALECT = TorchvisionDialect()


def _modern(name: str) -> str:
    match = _LEGACY_MASK.match(name)
    if match:
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    for pattern, replacement in _LEGACY:
        name = pattern.sub(replacement, name)
    return name


def _norm_eps(sha256: str) -> tuple[float, bool]:
    """Epsilon, and whether the file itself told (its published name holds its hash)."""
    known = [re.search(r"-([0-9a-f]{8})\.pth$", weights.url) for weights in _EPS_ZERO_WEIGHTS]
    if any(match and sha256.startswith(match[1]) for match in known):
        return 0.0, True
    return 1e-5, False


Shapes = Mapping[str, tuple[int, ...]]


def _shape(shapes: Shapes, name: str, path: Path) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(
            f"{path}: tensor '{name}' is missing; expected a torchvision Mask R-CNN or "
            "Faster R-CNN with a feature pyramid"
        )
    return shapes[name]


def _count(shapes: Shapes, pattern: str) -> int:
    return len({m[1] for n in shapes if (m := re.fullmatch(pattern, n))})


def _norm_kind(shapes: Shapes, prefix: str) -> "str":
    return "batch_norm" if f"{prefix}.running_mean" in shapes else "none"


def _anchors(
    shapes: Shapes, strides: tuple[int, ...], path: Path
) -> tuple[AnchorSpec, tuple[Assumption, ...]]:
    """Three anchors per cell are one size per level; fifteen are all five sizes everywhere."""
    per_cell = _shape(shapes, "rpn.head.cls_logits.weight", path)[0]
    levels = len(strides) + 1
    ratios = ((0.5, 1.0, 2.0),) * levels
    if per_cell == 3:
        sizes = tuple((float(8 * s),) for s in (*strides, 2 * strides[-1]))
    elif per_cell == 15:
        sizes = ((32.0, 64.0, 128.0, 256.0, 512.0),) * levels
    else:
        raise CheckpointError(
            f"{path}: {per_cell} anchors per cell; torchvision's builders have 3 or 15, so sizes "
            "and ratios cannot be guessed; give them with --spec ('anchors': sizes, ratios)"
        )
    shown = ", ".join("/".join(f"{s:g}" for s in level) for level in sizes)
    return AnchorSpec(sizes, ratios), (Assumption("anchor sizes", shown, "--spec"),)


def _classes(shapes: Shapes, path: Path) -> tuple[ClassSpec, tuple[Assumption, ...]]:
    count = _shape(shapes, DIALECT.landmark, path)[0]
    if count == _COCO_CLASSES:
        names = tuple(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
        return ClassSpec(names), (Assumption("class names", "COCO's 91", "--names"),)
    names = ("__background__", *(f"class_{i}" for i in range(1, count)))
    return ClassSpec(names), (Assumption("class names", f"class_1 … class_{count - 1}", "--names"),)


def _pooler(strides: tuple[int, ...], output_size: int) -> PoolerSpec:
    return PoolerSpec(output_size=output_size, strides=strides)


def _box_head(
    shapes: Shapes, strides: tuple[int, ...], channels: int, eps: float, path: Path
) -> BoxHeadSpec:
    weights = [
        (int(m[1] or 0), s)
        for n, s in shapes.items()
        if (m := re.fullmatch(r"roi_heads\.box_head\.(?:fc)?(\d+)(?:\.0)?\.weight", n))
        and len(s) in (2, 4)
    ]
    convs = tuple(s[0] for _, s in sorted(weights) if len(s) == 4)
    fcs = [s for _, s in sorted(weights) if len(s) == 2]
    if not fcs:
        raise CheckpointError(f"{path}: no fully connected layer under 'roi_heads.box_head.'")
    cells = fcs[0][1] // (convs[-1] if convs else channels)
    side = math.isqrt(cells)
    if side * side * (convs[-1] if convs else channels) != fcs[0][1]:
        raise CheckpointError(
            f"{path}: the first layer of 'roi_heads.box_head' takes {fcs[0][1]} values, which is "
            f"no square grid of {convs[-1] if convs else channels} channels"
        )
    return BoxHeadSpec(
        pooler=_pooler(strides, side),
        conv_widths=convs,
        fc_widths=tuple(s[0] for s in fcs),
        norm_eps=eps,
    )


def _mask_head(shapes: Shapes, strides: tuple[int, ...], eps: float) -> MaskHeadSpec | None:
    deconv = shapes.get("roi_heads.mask_predictor.conv5_mask.weight")
    if deconv is None:
        return None
    count = _count(shapes, r"roi_heads\.mask_head\.(\d+)\.0\.weight")
    widths = tuple(shapes[f"roi_heads.mask_head.{i}.0.weight"][0] for i in range(count))
    return MaskHeadSpec(
        pooler=_pooler(strides, 14),
        conv_widths=widths,
        deconv_width=deconv[1],
        norm=_norm_kind(shapes, "roi_heads.mask_head.0.1"),
        norm_eps=eps,
    )


def _architecture(body: str, shapes: Shapes, mask: MaskHeadSpec | None) -> str:
    family = "fasterrcnn" if mask is None else "maskrcnn"
    second = "_v2" if "roi_heads.box_head.0.0.weight" in shapes else ""
    return f"{family}_{body}_fpn{second}"


__all__ = ["DIALECT", "MobileNetV3Spec", "ResNetSpec", "TorchvisionDialect"]
