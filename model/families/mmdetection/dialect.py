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
from model.families.assumptions import unknown_fields
from model.families.dialect import Reading, Source
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
_PIXELS = ("channel_order", "mean", "std")
# What MMDetection's code fixes.
_FIXED = (
    "body.first_dilations", "fpn.fuse", "anchors.cells", "rpn.score_threshold", "*.max_log_ratio",
    "*.pooler.strides", "*.pooler.levels", "*.pooler.canonical_level", "*.pooler.outer_eps",
    "*.pooler.kind", "mask.dilation",
)  # fmt: skip
# What its configurations always have.
_CONFIGURED = (
    "preprocess.short_side", "preprocess.long_side", "anchors.sizes", "anchors.ratios",
    "rpn.pre_nms", "rpn.post_nms", "rpn.nms_iou", "box.score_threshold", "box.nms_iou",
    "box.detections", "box.box_weights", "box.pooler.sampling_ratio",
)  # fmt: skip


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
        spec = applied.spec
        assumed = unknown_fields(spec, _known(spec, training, applied.fields))
        required = () if spec.anchors.per_cell == 3 else ("anchors.sizes", "anchors.ratios")
        notes = (*_notes(spec, training, source.names), *applied.notes)
        unused = frozenset(f"{_PREPROCESSOR}{leaf}" for leaf in ("mean", "std")) & tensors.keys()
        return Reading(spec, assumed, notes, unused, required=required)

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
    if is_version_1(names):
        notes.append("version 1 trained these weights with boxes that end a pixel later than here")
    norms = {spec.body.norm, spec.box.norm, "none" if spec.fpn is None else spec.fpn.norm}
    if "group_norm" in norms:
        notes.append(
            "GroupNorm with 32 groups; convolutions are used as stored: standardize the weights of "
            "a model with ConvWS first"
        )
    return tuple(notes)


def _known(spec: ModelSpec, training: Training, fields: frozenset[str]) -> set[str]:
    """Fields that MMDetection's code fixes, or the training's metadata has."""
    known = {*_FIXED, *fields}
    names = training.class_names
    if names is not None and len(names) == spec.num_foreground:
        known.add("classes.names")
    stored = {
        "body.stride_in_1x1": training.stride_in_1x1,
        **{f"preprocess.{name}": getattr(training, name) for name in _PIXELS},
    }
    known.update(field for field, value in stored.items() if value is not None)
    if training.config.tree:
        # What a configuration leaves out has the default of MMDetection's classes.
        unset = {*_CONFIGURED, *stored, "classes.names"}
        known.update(field for field in unknown_fields(spec, known) if field not in unset)
    return known
