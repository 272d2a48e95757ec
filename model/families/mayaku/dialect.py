"""mayaku's checkpoints: Faster, Mask and Keypoint R-CNN with a ResNet and a pyramid.

A file holds its configuration. The networks are detectron2's; what differs is
below: photos in RGB, other sampling, and sides that are rounded to even numbers at halves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from model.errors import CheckpointError
from model.families.assumptions import unknown_fields
from model.families.detectron2.dialect import FIXED
from model.families.detectron2.names import original_name
from model.families.detectron2.settings import BASES, DEFAULTS, Settings, shown
from model.families.detectron2.spec import build_spec
from model.families.dialect import Reading, Source
from model.families.mayaku.names import detectron2_name
from model.families.shapes import Shapes
from model.spec import ModelSpec

_BODY = "backbone.bottom_up.stem.0.weight"
_PYRAMID = "backbone.lateral_convs."
# detectron2's keys for mayaku's; all others are detectron2's defaults for a pyramid.
_KEYS = {
    "INPUT.MIN_SIZE_TEST": "input.min_size_test",
    "INPUT.MAX_SIZE_TEST": "input.max_size_test",
    "MODEL.PIXEL_MEAN": "model.pixel_mean",
    "MODEL.PIXEL_STD": "model.pixel_std",
    "MODEL.MASK_ON": "model.mask_on",
    "MODEL.KEYPOINT_ON": "model.keypoint_on",
    "MODEL.RESNETS.NORM": "model.backbone.norm",
    "MODEL.RESNETS.STRIDE_IN_1X1": "model.backbone.stride_in_1x1",
    "MODEL.FPN.IN_FEATURES": "model.fpn.in_features",
    "MODEL.FPN.NORM": "model.fpn.norm",
    "MODEL.FPN.FUSE_TYPE": "model.fpn.fuse_type",
    "MODEL.ANCHOR_GENERATOR.SIZES": "model.anchor_generator.sizes",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": "model.anchor_generator.aspect_ratios",
    "MODEL.ANCHOR_GENERATOR.OFFSET": "model.anchor_generator.offset",
    "MODEL.RPN.IN_FEATURES": "model.rpn.in_features",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "model.rpn.pre_nms_topk_test",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "model.rpn.post_nms_topk_test",
    "MODEL.RPN.NMS_THRESH": "model.rpn.nms_thresh",
    "MODEL.RPN.BBOX_REG_WEIGHTS": "model.rpn.bbox_reg_weights",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": "model.rpn.min_box_size",
    "MODEL.ROI_HEADS.IN_FEATURES": "model.roi_heads.in_features",
    "MODEL.ROI_HEADS.NUM_CLASSES": "model.roi_heads.num_classes",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "model.roi_heads.score_thresh_test",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "model.roi_heads.nms_thresh_test",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "model.roi_box_head.bbox_reg_weights",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": "model.roi_box_head.pooler_resolution",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": "model.roi_box_head.pooler_sampling_ratio",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": "model.roi_box_head.cls_agnostic_bbox_reg",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": "model.roi_mask_head.pooler_resolution",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": "model.roi_mask_head.pooler_sampling_ratio",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": "model.roi_mask_head.cls_agnostic_mask",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": "model.roi_keypoint_head.pooler_resolution",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": (
        "model.roi_keypoint_head.pooler_sampling_ratio"
    ),
    "TEST.DETECTIONS_PER_IMAGE": "test.detections_per_image",
}
# mayaku's own defaults, where they are not detectron2's.
_DEFAULTS: Mapping[str, Any] = {
    **DEFAULTS,
    **BASES["Base-RCNN-FPN.yaml"],
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 1e-5,
    "TEST.DETECTIONS_PER_IMAGE": 300,
}
_SAMPLES = 2  # of a sampling ratio of 0, which is adaptive in detectron2


@dataclass(frozen=True, slots=True)
class MayakuDialect:
    """See the module docstring; implements `Dialect`."""

    name: str = "mayaku"
    landmark: str = "rpn.head.objectness_logits.weight"
    config_names: tuple[str, ...] = ()

    def recognizes(self, names: Collection[str]) -> bool:
        """Whether the name of mayaku's RPN occurs."""
        return self.landmark in names

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Replace mayaku's names by detectron2's."""
        if _BODY not in tensors or not any(name.startswith(_PYRAMID) for name in tensors):
            raise CheckpointError(
                f"{path}: a model of mayaku whose body is no ResNet with a pyramid (ConvNeXt, "
                "UniQuery); only Faster, Mask and Keypoint R-CNN on a ResNet can be exported"
            )
        return {detectron2_name(name): tensor for name, tensor in tensors.items()}

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read widths and depths from the shapes, other values from the stored configuration."""
        config = _at(source.content, "mayaku.config")
        config = config if isinstance(config, Mapping) else {}
        settings = _settings(config, source.path)
        shapes = Shapes(source.path, {n: tuple(t.shape) for n, t in tensors.items()})
        spec = _as_mayaku(build_spec(shapes, settings), settings)
        known = [*FIXED, "preprocess.channel_order", "body.dilations", "*.pooler.kind"]
        known += ["*.pooler.aligned", "*.pooler.levels", "box.scoring"]
        assumed = unknown_fields(spec, known)
        if config:
            assumed = tuple(field for field in assumed if field.endswith(".names"))
        notes = () if config else ("no configuration in the file: mayaku's defaults are assumed",)
        return Reading(spec, assumed, notes)

    def original(self, name: str, spec: ModelSpec) -> str:
        """Map the network's name to detectron2's, which `prepare` gives."""
        return original_name(name, spec)


DIALECT = MayakuDialect()


def _settings(config: Mapping[Any, Any], path: Path) -> Settings:
    """The configuration under detectron2's keys."""
    source = f"the configuration in {path.name}"
    values = {key: _at(config, name) for key, name in _KEYS.items()}
    explicit = {key: value for key, value in values.items() if value is not None}
    settings = Settings({**_DEFAULTS, **explicit}, source, frozenset(explicit), explicit=explicit)
    mode = _at(config, "input.resize_mode")
    if mode not in (None, "shortest_edge"):
        raise CheckpointError(
            f"{source}: input.resize_mode is {shown(mode)}, which cannot be exported; expected "
            "'shortest_edge'"
        )
    return settings


def _at(tree: Any, path: str) -> Any:
    """A value of nested dicts; tuples as lists, as in JSON."""
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return list(tree) if isinstance(tree, tuple) else tree


def _as_mayaku(spec: ModelSpec, settings: Settings) -> ModelSpec:
    """What mayaku computes in another way than detectron2."""
    heads: dict[str, Any] = {}
    for name in ("box", "mask", "keypoint"):
        head = getattr(spec, name)
        if head is not None and head.pooler.sampling_ratio == 0:
            heads[name] = replace(head, pooler=replace(head.pooler, sampling_ratio=_SAMPLES))
    preprocess = replace(spec.preprocess, resize_rule="mayaku")
    return replace(spec, dialect=DIALECT.name, preprocess=preprocess, **heads)
