"""detectron2's checkpoints: `.pth` of a training, `.pkl` of its zoo, with or without a config.

Semantics: docs/models.md. They differ from torchvision's almost everywhere, so that nothing here
is inherited from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from model.errors import CheckpointError
from model.families.detectron2.names import original_name
from model.families.detectron2.norms import statistics_left_out
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
from model.spec_options import SpecOptions, was_said

_BASE_OF = {
    "FPN": "Base-RCNN-FPN.yaml",
    "C4": "Base-RCNN-C4.yaml",
    "DC5": "Base-RCNN-DilatedC5.yaml",
}
_KEYPOINT_BASE = "Base-Keypoint-RCNN-FPN.yaml"
# Old files hold buffers that are made anew from the configuration.
_BUFFERS = ("proposal_generator.anchor_generator.cell_anchors.", "anchor_generator.cell_anchors.")
# Where the user says the field, the configuration's value does not count.
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
# The zoo's ResNeXts come from other pretraining than its ResNets.
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

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether detectron2's RPN is there under its name."""
        return self.landmark in tensors

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Names are kept; anchors, which the network makes itself, are left out."""
        return {n: t for n, t in tensors.items() if not n.startswith(_BUFFERS)}

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read widths and depths off the shapes, the rest off the configuration."""
        shapes = Shapes(source.path, {n: tuple(t.shape) for n, t in tensors.items()})
        if shapes.has("roi_heads.box_head.0."):
            raise CheckpointError(
                f"{source.path}: a Cascade R-CNN (several box heads); only one can be exported"
            )
        if source.config is not None:
            settings = read_settings(source.config, source.is_config_found)
            spec = build_spec(shapes, _without_said(settings, source.options))
            notes = notes_of(source, settings, spec, tensors)
            # A configuration counts classes and does not name them.
            named = (Assumption("class names", _shown(spec), "--names", "classes.names"),)
            added = statistics_left_out(tensors, spec)
            if added:
                notes += (_left_out(len(added) // 2),)
            return Reading(spec, named, notes, frozenset(PIXELS), added)
        settings = _without_config(shapes, tensors)
        spec = build_spec(shapes, settings)
        return Reading(spec, _assumptions(spec, settings), (), frozenset(PIXELS))

    def original(self, name: str, spec: ModelSpec) -> str:
        """Map the network's name to detectron2's."""
        return original_name(name, spec)


DIALECT = Detectron2Dialect()


def _without_said(settings: Settings, options: SpecOptions) -> Settings:
    """Sound values in place of those that the user's replace, so that no error asks for them."""
    said = {key: DEFAULTS[key] for key, field in _FIELDS.items() if was_said(field, options)}
    return replace(settings, values={**settings.values, **said})


def _without_config(shapes: Shapes, tensors: Mapping[str, Tensor]) -> Settings:
    kind = layout(shapes)
    base = _KEYPOINT_BASE if shapes.has("roi_heads.keypoint_head.") else _BASE_OF[kind]
    settings = assumed_settings(base)
    values = dict(settings.values)
    prefix = "backbone.bottom_up." if kind == "FPN" else "backbone."
    middle = shapes.by_name.get(f"{prefix}res2.0.conv2.weight", (1, 1))
    if len(middle) > 1 and middle[0] != middle[1]:
        values.update(_RESNEXT)
    if shapes.has(f"{prefix}stem.conv1.norm.") and not shapes.has(
        f"{prefix}stem.conv1.norm.running_mean"
    ):
        values["MODEL.RESNETS.STRIDE_IN_1X1"] = False  # the zoo's GroupNorm models, too
    found = {key: tensors[name] for name, key in PIXELS.items() if name in tensors}
    values.update({key: tensor.flatten().tolist() for key, tensor in found.items()})
    return replace(settings, values=values, said=frozenset(found), given=found)


def _left_out(count: int) -> str:
    return (
        f"{count} BatchNorms without running statistics in the file: mean 0 and variance 1, as "
        "detectron2 takes them"
    )


def _assumptions(spec: ModelSpec, settings: Settings) -> tuple[Assumption, ...]:
    """What the weights do not tell, as the zoo's base file of the architecture has it."""
    box, pre, rpn = spec.box, spec.preprocess, spec.rpn
    rows = [
        ("configuration", settings.source, "--config", ""),
        ("score threshold", f"{box.score_threshold:g}", "--score-threshold", "box.score_threshold"),
        ("NMS IoU", f"{box.nms_iou:g}", "--nms-iou", "box.nms_iou"),
        ("detections per image", str(box.detections), "--detections", "box.detections"),
        ("short side", str(pre.short_side), "--short-side", "preprocess.short_side"),
        ("long side", str(pre.long_side), "--long-side", "preprocess.long_side"),
        ("channel order", pre.channel_order, "--spec", "preprocess.channel_order"),
        ("class names", _shown(spec), "--names", "classes.names"),
        ("anchor sizes", _lists(spec.anchors.sizes), "--spec", "anchors.sizes"),
        ("anchor ratios", _lists(spec.anchors.ratios[:1]), "--spec", "anchors.ratios"),
        ("RPN", f"{rpn.pre_nms} → NMS {rpn.nms_iou:g} → {rpn.post_nms}", "--spec", "rpn.pre_nms"),
        ("pooling", _pooling(spec), "--spec", "box.pooler"),
        ("box weights", _lists((box.box_weights,)), "--spec", "box.box_weights"),
    ]
    if spec.body.norm == "group_norm":
        rows.append(("normalisation of the body", "GroupNorm", "--config", "body.norm"))
    if spec.body.kind == "resnet":
        where = "1x1" if spec.body.stride_in_1x1 else "3x3"
        rows.append(("stride in the", where, "--spec", "body.stride_in_1x1"))
        if spec.body.dilations[-1] > 1:
            dilation = str(spec.body.dilations[-1])
            rows.append(("dilation of res5", dilation, "--spec", "body.dilations"))
    if "MODEL.PIXEL_MEAN" not in settings.said:
        rows.append(("pixel mean", _lists((pre.mean,)), "--spec", "preprocess.mean"))
    if "MODEL.PIXEL_STD" not in settings.said:
        rows.append(("pixel std", _lists((pre.std,)), "--spec", "preprocess.std"))
    return tuple(Assumption(*row) for row in rows)


def _lists(rows: tuple[tuple[float, ...], ...]) -> str:
    return ", ".join("/".join(f"{v:g}" for v in row) for row in rows)


def _shown(spec: ModelSpec) -> str:
    names = spec.classes.names
    return "COCO's 80" if len(names) == 80 else " … ".join(dict.fromkeys((names[0], names[-1])))


def _pooling(spec: ModelSpec) -> str:
    pooler = spec.box.pooler
    samples = pooler.sampling_ratio or "adaptive"
    frame = "aligned" if pooler.aligned else "not aligned"
    return f"RoIAlign {pooler.output_size}x{pooler.output_size}, {frame}, sampling {samples}"
