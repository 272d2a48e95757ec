"""MMDetection's checkpoints: Mask R-CNN and Faster R-CNN with ResNets and a pyramid.

Semantics: docs/models.md. They are written from the published code of MMDetection 2 and 3; no
reference was run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.errors import CheckpointError
from model.families.dialect import Assumption, Reading, Source
from model.families.mmdetection.meta import Training, read_training, with_stored
from model.families.mmdetection.names import is_old, modernised, original_name
from model.families.mmdetection.settings import apply_config
from model.families.mmdetection.spec import build_spec
from model.families.shapes import Shapes
from model.spec import ModelSpec, PoolerSpec

# Version 2 keeps here what its main names held before the average took their place.
_AVERAGED = ("ema_backbone_", "ema_neck_", "ema_rpn_head_", "ema_roi_head_")
_PREPROCESSOR = "data_preprocessor."
_PARTS = ("rpn_head.", "roi_head.", "bbox_head.")
# What else MMDetection trains, by a name that only it has.
_OTHERS = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (r"backbone\..*\bconv(\d_|_)?offset\b", "deformable convolutions"),
        (r"(roi_head\.)?bbox_head\.\d+\.", "a Cascade R-CNN (several box heads)"),
        (r"bbox_head\.retina_", "a RetinaNet"),
        (r"(roi_head\.)?mask_head\.\d+\.", "several mask heads (HTC, Cascade Mask R-CNN)"),
        (r"(roi_head\.)?mask_iou_head\.", "a Mask Scoring R-CNN"),
        (r"roi_head\.point_head\.", "a PointRend"),
        (r"(roi_head\.)?grid_head\.", "a Grid R-CNN"),
        (r"(roi_head\.)?bbox_head\.(cls|reg)_(convs|fcs)\.", "a box head with two branches"),
        (r"rpn_head\.(stages|conv_loc|conv_shape)\b", "an RPN with anchors that are learnt"),
        (r"neck\.\d+\.", "several necks (Libra R-CNN)"),
        (r"neck\.(downsample_convs|pafpn_convs)\.", "a PAFPN"),
        (r"backbone\.stem\.", "a ResNet with a deep stem (ResNetV1c, V1d)"),
        (r"backbone\.layer\d\.0\.downsample\.2\.", "a ResNet with avg_down (V1d)"),
    )
)


@dataclass(frozen=True, slots=True)
class MMDetectionDialect:
    """See the module docstring; implements `Dialect`."""

    name: str = "mmdetection"
    landmark: str = "rpn_head.rpn_cls.weight"
    config_names: tuple[str, ...] = ()

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether heads are there under its names, those of other detectors of its included."""
        return any(name.startswith(_PARTS) for name in tensors)

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Version 1's names and order of classes become version 2's."""
        tensors = {n: t for n, t in tensors.items() if not n.startswith(_AVERAGED)}
        _refuse_others(tensors, path)
        return modernised(tensors)

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read widths and depths off the shapes, and what the training said of itself."""
        if source.config is not None:
            raise CheckpointError(
                f"{source.config}: MMDetection's configurations are programs and are not read; "
                "say what the weights do not tell by options or in a file for --spec"
            )
        shapes = Shapes(source.path, {n: tuple(t.shape) for n, t in tensors.items()})
        training = with_stored(read_training(source.meta), tensors, _PREPROCESSOR)
        applied = apply_config(build_spec(shapes, training), training.config, source.path)
        assumptions = _assumptions(applied.spec, training, is_old(source.names))
        unsaid = tuple(a for a in assumptions if not _was_said(a.field, applied.said))
        notes = (*_notes(applied.spec, training, source.names), *applied.notes)
        unused = frozenset(f"{_PREPROCESSOR}{leaf}" for leaf in ("mean", "std")) & tensors.keys()
        return Reading(applied.spec, unsaid, notes, unused)

    def original(self, name: str, spec: ModelSpec) -> str:
        """Map the network's name to MMDetection's."""
        return original_name(name, spec)


DIALECT = MMDetectionDialect()


def _refuse_others(tensors: Mapping[str, Tensor], path: Path) -> None:
    for pattern, what in _OTHERS:
        found = next((name for name in tensors if pattern.match(name)), None)
        if found is not None:
            raise CheckpointError(
                f"{path}: {what} of MMDetection (it has '{found}') cannot be exported; expected a "
                "Mask R-CNN or Faster R-CNN with a ResNet or ResNeXt and FPN"
            )
    for prefix, what in (
        ("rpn_head.", "a one-stage detector, without an RPN,"),
        ("neck.", "a detector without FPN (C4, DC5)"),
        ("backbone.layer1.", "a detector whose body is no ResNet"),
    ):
        if not any(name.startswith(prefix) for name in tensors):
            raise CheckpointError(
                f"{path}: {what} of MMDetection (it has no '{prefix}…') cannot be exported; "
                "expected a Mask R-CNN or Faster R-CNN with a ResNet or ResNeXt and FPN"
            )


def _notes(spec: ModelSpec, training: Training, names: Collection[str]) -> tuple[str, ...]:
    notes = []
    averaged = sum(name.startswith(_AVERAGED) for name in names)
    if averaged:
        notes.append(
            f"{averaged} tensors 'ema_…' left out: the averaged weights have the main names"
        )
    if training.version is not None:
        notes.append(f"written by MMDetection {ascii(training.version)[1:-1]}")
    norms = {spec.body.norm, spec.box.norm, "none" if spec.fpn is None else spec.fpn.norm}
    if "group_norm" in norms:
        notes.append(
            "GroupNorm: 32 groups; convolutions as they are stored: standardise the weights of "
            "a model with ConvWS before"
        )
    return tuple(notes)


# Fields that stand for several in one line, which goes when all of them were said.
_TOGETHER = {
    "rpn.pre_nms": ("rpn.pre_nms", "rpn.nms_iou", "rpn.post_nms"),
    "box.pooler": ("box.pooler.sampling_ratio",),
}


def _was_said(field: str, said: frozenset[str]) -> bool:
    return said.issuperset(_TOGETHER.get(field, (field,)))


def _assumptions(spec: ModelSpec, training: Training, old: bool) -> tuple[Assumption, ...]:
    """What the weights do not tell; `apply_config` knows what of it the training said."""
    box, pre, rpn, pooler = spec.box, spec.preprocess, spec.rpn, spec.box.pooler
    rows = [
        ("score threshold", f"{box.score_threshold:g}", "--score-threshold", "box.score_threshold"),
        ("NMS IoU", f"{box.nms_iou:g}", "--nms-iou", "box.nms_iou"),
        ("detections per image", str(box.detections), "--detections", "box.detections"),
        ("short side", str(pre.short_side), "--short-side", "preprocess.short_side"),
        ("long side", str(pre.long_side), "--long-side", "preprocess.long_side"),
        ("RPN", f"{rpn.pre_nms} → NMS {rpn.nms_iou:g} → {rpn.post_nms}", "--spec", "rpn.pre_nms"),
        ("pooling", _pooling(pooler), "--spec", "box.pooler"),
        ("box weights", _list(box.box_weights), "--spec", "box.box_weights"),
    ]
    if training.class_names is None or len(training.class_names) != spec.num_foreground:
        rows.append(("class names", _shown(spec), "--names", "classes.names"))
    if training.stride_in_1x1 is None:
        rows.append(("style: stride in the", "3x3 (pytorch)", "--spec", "body.stride_in_1x1"))
    if training.channel_order is None:
        rows.append(("channel order", pre.channel_order, "--spec", "preprocess.channel_order"))
    if training.mean is None:
        rows.append(("pixel mean", _list(pre.mean), "--spec", "preprocess.mean"))
    if training.std is None:
        rows.append(("pixel std", _list(pre.std), "--spec", "preprocess.std"))
    if old:
        rows.append(("coordinates as of version 2;", _OLD_COORDINATES, "--spec", ""))
    return (*(Assumption(*row) for row in rows), *_anchors(spec))


_OLD_COORDINATES = "version 1 trained these weights with boxes that end a pixel later"


def _anchors(spec: ModelSpec) -> tuple[Assumption, ...]:
    unknown = spec.anchors.per_cell != 3
    sizes = ", ".join(f"{s[0]:g}" for s in spec.anchors.sizes)
    ratios = _list(spec.anchors.ratios[0])
    if unknown:
        sizes = ratios = f"of {spec.anchors.per_cell} anchors per cell"
    return (
        Assumption("anchor sizes", sizes, "--spec", "anchors.sizes", unknown),
        Assumption("anchor ratios", ratios, "--spec", "anchors.ratios", unknown),
    )


def _list(values: tuple[float, ...]) -> str:
    return "/".join(f"{v:g}" for v in values)


def _shown(spec: ModelSpec) -> str:
    names = spec.classes.names
    return "COCO's 80" if len(names) == 80 else " … ".join(dict.fromkeys((names[0], names[-1])))


def _pooling(pooler: PoolerSpec) -> str:
    side, samples = pooler.output_size, pooler.sampling_ratio or "adaptive"
    aligned = "aligned" if pooler.aligned else "not aligned"
    return (
        f"RoIAlign {side}x{side}, {aligned}, sampling {samples}, "
        f"finest scale {pooler.canonical_size:g}"
    )
