"""detectron2's checkpoints: `.pth` of a training, `.pkl` of its zoo, with or without a config.

docs/models.md describes how its models differ from torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from model.errors import CheckpointError
from model.families.assumptions import anchor_assumptions, assumptions
from model.families.detectron2.names import original_name
from model.families.detectron2.norms import omitted_statistics
from model.families.detectron2.notes import PIXELS, notes_of
from model.families.detectron2.settings import (
    DEFAULTS,
    Settings,
    assumed_settings,
    read_settings,
)
from model.families.detectron2.spec import build_spec, layout
from model.families.dialect import Assumption, Reading, Source
from model.families.shapes import Shapes
from model.spec import ModelSpec
from model.spec_options import SpecOptions, is_set

_BASE_OF = {
    "FPN": "Base-RCNN-FPN.yaml",
    "C4": "Base-RCNN-C4.yaml",
    "DC5": "Base-RCNN-DilatedC5.yaml",
}
_KEYPOINT_BASE = "Base-Keypoint-RCNN-FPN.yaml"
# Buffers in old files; the network computes them from the configuration.
_BUFFERS = ("proposal_generator.anchor_generator.cell_anchors.", "anchor_generator.cell_anchors.")
# If the user sets the field, the configuration's value is not used.
_FIELDS = {
    "INPUT.MIN_SIZE_TEST": "preprocess.short_side",
    "INPUT.MAX_SIZE_TEST": "preprocess.long_side",
    "INPUT.FORMAT": "preprocess.channel_order",
    "MODEL.PIXEL_MEAN": "preprocess.mean",
    "MODEL.PIXEL_STD": "preprocess.std",
    "MODEL.ANCHOR_GENERATOR.SIZES": "anchors.sizes",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": "anchors.ratios",
    "MODEL.ANCHOR_GENERATOR.OFFSET": "anchors.offset",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "rpn.pre_nms",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "rpn.post_nms",
    "MODEL.RPN.NMS_THRESH": "rpn.nms_iou",
    "MODEL.RPN.BBOX_REG_WEIGHTS": "rpn.box_weights",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": "rpn.min_size",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "box.score_threshold",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "box.nms_iou",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "box.box_weights",
    "TEST.DETECTIONS_PER_IMAGE": "box.detections",
}
# The zoo's ResNeXts have another pretraining than its ResNets.
_RESNEXT = {
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.PIXEL_STD": [57.375, 57.12, 58.395],
}


@dataclass(frozen=True, slots=True)
class Detectron2Dialect:
    """See the module docstring; implements `Dialect`."""

    name: str = "detectron2"
    landmark: str = "proposal_generator.rpn_head.objectness_logits.weight"
    config_names: tuple[str, ...] = ("config.yaml",)

    def recognizes(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the name of detectron2's RPN occurs."""
        return self.landmark in tensors

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Remove the anchors, which the network computes."""
        return {n: t for n, t in tensors.items() if not n.startswith(_BUFFERS)}

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read widths and depths from the shapes, other values from the configuration."""
        shapes = Shapes(source.path, {n: tuple(t.shape) for n, t in tensors.items()})
        if shapes.has("roi_heads.box_head.0."):
            raise CheckpointError(
                f"{source.path}: a Cascade R-CNN (several box heads); only one can be exported"
            )
        if source.config is not None:
            settings = read_settings(source.config, source.config_is_implicit)
            spec = build_spec(shapes, _with_defaults(settings, source.options))
            notes = notes_of(source, settings, spec, tensors)
            # A configuration has the number of classes but not their names.
            assumed = tuple(assumptions(spec, "classes.names"))
            added = omitted_statistics(tensors, spec)
            if added:
                notes += (
                    f"{len(added) // 2} BatchNorms without running statistics in the file: mean 0 "
                    "and variance 1, as in detectron2",
                )
            return Reading(spec, assumed, notes, frozenset(PIXELS), added)
        settings = _without_config(shapes, tensors)
        spec = build_spec(shapes, settings)
        return Reading(spec, _assumptions(spec, settings), (), frozenset(PIXELS))

    def original(self, name: str, spec: ModelSpec) -> str:
        """Map the network's name to detectron2's."""
        return original_name(name, spec)


DIALECT = Detectron2Dialect()


def _with_defaults(settings: Settings, options: SpecOptions) -> Settings:
    """Valid values for the keys that the user's options override, so that they cause no error."""
    defaults = {key: DEFAULTS[key] for key, field in _FIELDS.items() if is_set(field, options)}
    return replace(settings, values={**settings.values, **defaults})


def _without_config(shapes: Shapes, tensors: Mapping[str, Tensor]) -> Settings:
    name = layout(shapes)
    base = _KEYPOINT_BASE if shapes.has("roi_heads.keypoint_head.") else _BASE_OF[name]
    settings = assumed_settings(base)
    values = dict(settings.values)
    prefix = "backbone.bottom_up." if name == "FPN" else "backbone."
    middle = shapes.by_name.get(f"{prefix}res2.0.conv2.weight", (1, 1))
    if len(middle) > 1 and middle[0] != middle[1]:
        values.update(_RESNEXT)
    if shapes.has(f"{prefix}stem.conv1.norm.") and not shapes.has(
        f"{prefix}stem.conv1.norm.running_mean"
    ):
        values["MODEL.RESNETS.STRIDE_IN_1X1"] = False  # as in the zoo's GroupNorm models
    stored = {key: tensors[name] for name, key in PIXELS.items() if name in tensors}
    values.update({key: tensor.flatten().tolist() for key, tensor in stored.items()})
    return replace(settings, values=values, configured=frozenset(stored), explicit=stored)


def _assumptions(spec: ModelSpec, settings: Settings) -> tuple[Assumption, ...]:
    """The values that are not in the weights, from the zoo's base file of the architecture."""
    rows = [
        Assumption("configuration", settings.source, "--config", ""),
        *assumptions(spec, "box.score_threshold", "box.nms_iou", "box.detections"),
        *assumptions(
            spec,
            "preprocess.short_side",
            "preprocess.long_side",
            "preprocess.channel_order",
            "classes.names",
        ),
        *anchor_assumptions(spec, spec.anchors.per_cell),
        *assumptions(spec, "rpn.pre_nms", "box.pooler", "box.box_weights"),
    ]
    if spec.body.norm == "group_norm":
        rows.append(Assumption("normalization of the body", "GroupNorm", "--config", "body.norm"))
    if spec.body.kind == "resnet":
        where = "1x1" if spec.body.stride_in_1x1 else "3x3"
        rows.append(Assumption("stride in the", where, "--spec", "body.stride_in_1x1"))
        if spec.body.dilations[-1] > 1:
            dilation = str(spec.body.dilations[-1])
            rows.append(Assumption("dilation of res5", dilation, "--spec", "body.dilations"))
    if "MODEL.PIXEL_MEAN" not in settings.configured:
        rows += assumptions(spec, "preprocess.mean")
    if "MODEL.PIXEL_STD" not in settings.configured:
        rows += assumptions(spec, "preprocess.std")
    return tuple(rows)
