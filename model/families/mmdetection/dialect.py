"""MMDetection's checkpoints: Mask R-CNN and Faster R-CNN with ResNets and a pyramid.

docs/models.md describes its models. They follow the published code of MMDetection 2 and 3, without
a comparison with the framework itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.errors import CheckpointError
from model.families.assumptions import anchor_assumptions, assumptions, pooling
from model.families.dialect import Assumption, Reading, Source
from model.families.mmdetection.meta import Training, read_training, with_stored
from model.families.mmdetection.names import as_version_2, is_version_1, original_name
from model.families.mmdetection.settings import apply_config
from model.families.mmdetection.spec import build_spec
from model.families.shapes import Shapes
from model.spec import ModelSpec

# Version 2 stores the averaged weights under the main names and the others under these.
_AVERAGED = ("ema_backbone_", "ema_neck_", "ema_rpn_head_", "ema_roi_head_")
_PREPROCESSOR = "data_preprocessor."
_PARTS = ("rpn_head.", "roi_head.", "bbox_head.")
# Unsupported models of MMDetection, by a name that only they have.
_UNSUPPORTED = tuple(
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

    def recognizes(self, names: Collection[str]) -> bool:
        """Whether the names of its heads occur, including those of its other detectors."""
        return any(name.startswith(_PARTS) for name in names)

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Convert version 1's names and class order to version 2."""
        tensors = {n: t for n, t in tensors.items() if not n.startswith(_AVERAGED)}
        _refuse_unsupported(tensors, path)
        return as_version_2(tensors)

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read widths and depths from the shapes, other values from the training's metadata."""
        if source.config is not None:
            raise CheckpointError(
                f"{source.config}: MMDetection's configurations are programs and are not read; "
                "set the values by options or in a file for --spec"
            )
        shapes = Shapes(source.path, {n: tuple(t.shape) for n, t in tensors.items()})
        meta = source.content.get("meta")
        training = read_training(meta if isinstance(meta, Mapping) else {})
        training = with_stored(training, tensors, _PREPROCESSOR)
        applied = apply_config(build_spec(shapes, training), training.config, source.path)
        rows = _assumptions(applied.spec, training, is_version_1(source.names))
        assumed = tuple(row for row in rows if not _is_configured(row.field, applied.fields))
        notes = (*_notes(applied.spec, training, source.names), *applied.notes)
        unused = frozenset(f"{_PREPROCESSOR}{leaf}" for leaf in ("mean", "std")) & tensors.keys()
        return Reading(applied.spec, assumed, notes, unused)

    def original(self, name: str, spec: ModelSpec) -> str:
        """Map the network's name to MMDetection's."""
        return original_name(name, spec)


DIALECT = MMDetectionDialect()


def _refuse_unsupported(tensors: Mapping[str, Tensor], path: Path) -> None:
    for pattern, what in _UNSUPPORTED:
        match = next((name for name in tensors if pattern.match(name)), None)
        if match is not None:
            raise CheckpointError(
                f"{path}: {what} of MMDetection (it has '{match}') cannot be exported; expected a "
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
            f"{averaged} tensors 'ema_…' are not used: the averaged weights have the main names"
        )
    if training.version is not None:
        notes.append(f"written by MMDetection {ascii(training.version)[1:-1]}")
    norms = {spec.body.norm, spec.box.norm, "none" if spec.fpn is None else spec.fpn.norm}
    if "group_norm" in norms:
        notes.append(
            "GroupNorm with 32 groups; convolutions are used as stored: standardize the weights of "
            "a model with ConvWS first"
        )
    return tuple(notes)


# Assumptions about several fields; they are removed if the configuration sets all of them.
_FIELDS_OF = {
    "rpn.pre_nms": ("rpn.pre_nms", "rpn.nms_iou", "rpn.post_nms"),
    "box.pooler": ("box.pooler.sampling_ratio",),
}


def _is_configured(field: str, fields: frozenset[str]) -> bool:
    return fields.issuperset(_FIELDS_OF.get(field, (field,)))


def _assumptions(spec: ModelSpec, training: Training, is_old: bool) -> list[Assumption]:
    """The values that are not in the weights; the configuration may still set some."""
    pooler = spec.box.pooler
    pooled = f"{pooling(pooler)}, finest scale {pooler.canonical_size:g}"
    rows = [
        *assumptions(spec, "box.score_threshold", "box.nms_iou", "box.detections"),
        *assumptions(spec, "preprocess.short_side", "preprocess.long_side", "rpn.pre_nms"),
        Assumption("pooling", pooled, "--spec", "box.pooler"),
        *assumptions(spec, "box.box_weights"),
    ]
    if training.class_names is None or len(training.class_names) != spec.num_foreground:
        rows += assumptions(spec, "classes.names")
    if training.stride_in_1x1 is None:
        style = "3x3 (pytorch)"
        rows.append(Assumption("style: stride in the", style, "--spec", "body.stride_in_1x1"))
    for name in ("channel_order", "mean", "std"):
        if getattr(training, name) is None:
            rows += assumptions(spec, f"preprocess.{name}")
    if is_old:
        note = "version 1 trained these weights with boxes that end a pixel later"
        rows.append(Assumption("coordinates as of version 2;", note, "--spec", ""))
    return [*rows, *anchor_assumptions(spec, 3)]
