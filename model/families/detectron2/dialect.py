"""detectron2's checkpoints: `.pth` of a training, `.pkl` of its zoo, with or without a config.

docs/models.md describes how its models differ from torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from model.errors import CheckpointError
from model.families.assumptions import unknown_fields
from model.families.detectron2.names import original_name
from model.families.detectron2.norms import omitted_statistics
from model.families.detectron2.settings import (
    DEFAULTS,
    Settings,
    assumed_settings,
    read_settings,
    shown,
)
from model.families.detectron2.spec import build_spec, layout
from model.families.dialect import Reading, Source
from model.families.shapes import Shapes
from model.spec import ModelSpec, ResNetSpec
from model.spec_options import SpecOptions, is_set

_BASE_OF = {
    "FPN": "Base-RCNN-FPN.yaml",
    "C4": "Base-RCNN-C4.yaml",
    "DC5": "Base-RCNN-DilatedC5.yaml",
}
_PIXELS = {"pixel_mean": "MODEL.PIXEL_MEAN", "pixel_std": "MODEL.PIXEL_STD"}
_MOST_NAMES = 20  # of unknown keys in a note
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
# What detectron2's code fixes.
FIXED = (
    "preprocess.size_divisor", "preprocess.fixed_hw", "body.first_dilations", "*.norm_eps",
    "fpn.extra_level", "anchors.cells", "rpn.score_threshold", "*.max_log_ratio",
    "*.pooler.strides", "*.pooler.canonical_*", "*.pooler.outer_eps", "mask.dilation",
)  # fmt: skip
# The zoo's ResNeXts have another pretraining than its ResNets.
_RESNEXT = {"MODEL.RESNETS.STRIDE_IN_1X1": False, "MODEL.PIXEL_STD": [57.375, 57.12, 58.395]}


@dataclass(frozen=True, slots=True)
class Detectron2Dialect:
    """See the module docstring; implements `Dialect`."""

    name: str = "detectron2"
    landmark: str = "proposal_generator.rpn_head.objectness_logits.weight"
    config_names: tuple[str, ...] = ("config.yaml",)

    def recognizes(self, names: Collection[str]) -> bool:
        """Whether the name of detectron2's RPN occurs."""
        return self.landmark in names

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
            notes = _notes(source, settings, spec, tensors)
            # A configuration has the number of classes but not their names.
            assumed = tuple(f for f in unknown_fields(spec, ()) if f.endswith(".names"))
            added = omitted_statistics(tensors, spec)
            if added:
                notes += (
                    f"{len(added) // 2} BatchNorms without running statistics in the file: mean 0 "
                    "and variance 1, as in detectron2",
                )
            return Reading(spec, assumed, notes, frozenset(_PIXELS), added)
        settings = _without_config(shapes, tensors)
        spec = build_spec(shapes, settings)
        note = f"no configuration: {settings.source} is assumed; pass the training's with --config"
        assumed = unknown_fields(spec, _known(settings))
        return Reading(spec, assumed, (note,), frozenset(_PIXELS))

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
    stored = {key: tensors[name] for name, key in _PIXELS.items() if name in tensors}
    values.update({key: tensor.flatten().tolist() for key, tensor in stored.items()})
    return replace(settings, values=values, configured=frozenset(stored), explicit=stored)


def _known(settings: Settings) -> list[str]:
    """Fields that detectron2's code fixes, or the weights have: old files have mean and std."""
    stored = {"MODEL.PIXEL_MEAN": "preprocess.mean", "MODEL.PIXEL_STD": "preprocess.std"}
    return [*FIXED, *(stored[key] for key in settings.configured)]


def _notes(
    source: Source, settings: Settings, spec: ModelSpec, tensors: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """The file, its unknown keys, and its differences from the weights."""
    notes = [f"configuration: {source.config}"]
    if settings.unknown:
        names = ", ".join(ascii(name[:100])[1:-1] for name in settings.unknown[:_MOST_NAMES])
        more = len(settings.unknown) - _MOST_NAMES
        names += f" and {more} more" if more > 0 else ""
        notes.append(f"unknown keys in it: {names}")
    return (*notes, *_other_pixels(source, settings, tensors), *_other_sizes(settings, spec))


def _other_pixels(
    source: Source, settings: Settings, tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Old files contain mean and deviation, which detectron2 no longer reads."""
    for name, key in _PIXELS.items():
        is_replaced = is_set(f"preprocess.{name.removeprefix('pixel_')}", source.options)
        if name not in tensors or is_replaced:
            continue
        stored, configured = tensors[name].flatten()[:4].tolist(), settings.numbers(key, 3)
        if len(stored) != 3 or not all(map(_is_close, stored, configured)):
            yield (
                f"{key} is {shown(list(configured))}{settings.by_default(key)} in "
                f"{settings.source}, but '{name}' in the weights is "
                f"{shown([round(v, 3) for v in stored])}; the configuration is used"
            )


def _is_close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5)


def _other_sizes(settings: Settings, spec: ModelSpec) -> Iterator[str]:
    for key, size in _sizes(spec):
        if key in settings.explicit and settings.explicit[key] != size:
            yield (
                f"{key} is {shown(settings.explicit[key])} in {settings.source}, but {size} in "
                "the weights, which are used"
            )


def _sizes(spec: ModelSpec) -> Iterator[tuple[str, int]]:
    """Sizes that are read from the weights but also occur in configurations."""
    if isinstance(spec.body, ResNetSpec):
        # C4 has the last stage in its RoI heads.
        res5_blocks = 0 if spec.roi_stage is None else spec.roi_stage.blocks
        yield "MODEL.RESNETS.DEPTH", spec.body.depth + 3 * res5_blocks
        yield "MODEL.RESNETS.NUM_GROUPS", spec.body.groups
    if spec.roi_stage is None:  # C4 has no such head
        yield "MODEL.ROI_BOX_HEAD.NUM_CONV", len(spec.box.conv_widths)
        yield "MODEL.ROI_BOX_HEAD.NUM_FC", len(spec.box.fc_widths)
        yield from (("MODEL.ROI_BOX_HEAD.FC_DIM", width) for width in spec.box.fc_widths[:1])
    if spec.mask is not None:
        yield "MODEL.ROI_MASK_HEAD.NUM_CONV", len(spec.mask.conv_widths)
    if spec.keypoint is not None:
        yield "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", len(spec.keypoint.names)
