"""A `config.yaml` that detectron2's LazyConfig saved, as keys of its other configurations.

It has the arguments of each class of the model. What it leaves out has the default of the class,
which is not always that of a configuration by keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_RPN, _HEADS = "model.proposal_generator", "model.roi_heads"
# A second path is of models without a pyramid (C4, DC5).
_KEYS = {
    "MODEL.PIXEL_MEAN": "model.pixel_mean",
    "MODEL.PIXEL_STD": "model.pixel_std",
    "INPUT.FORMAT": "model.input_format",
    "MODEL.RESNETS.NORM": "model.backbone.bottom_up.stages.norm model.backbone.stages.norm",
    "MODEL.RESNETS.STRIDE_IN_1X1": (
        "model.backbone.bottom_up.stages.stride_in_1x1 model.backbone.stages.stride_in_1x1"
    ),
    "MODEL.FPN.IN_FEATURES": "model.backbone.in_features",
    "MODEL.FPN.NORM": "model.backbone.norm",
    "MODEL.FPN.FUSE_TYPE": "model.backbone.fuse_type",
    "MODEL.RPN.IN_FEATURES": f"{_RPN}.in_features",
    "MODEL.RPN.NMS_THRESH": f"{_RPN}.nms_thresh",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": f"{_RPN}.pre_nms_topk",
    "MODEL.RPN.POST_NMS_TOPK_TEST": f"{_RPN}.post_nms_topk",
    "MODEL.RPN.BBOX_REG_WEIGHTS": f"{_RPN}.box2box_transform.weights",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": f"{_RPN}.min_box_size",
    "MODEL.ANCHOR_GENERATOR.SIZES": f"{_RPN}.anchor_generator.sizes",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": f"{_RPN}.anchor_generator.aspect_ratios",
    "MODEL.ANCHOR_GENERATOR.OFFSET": f"{_RPN}.anchor_generator.offset",
    "MODEL.ROI_HEADS.IN_FEATURES": f"{_HEADS}.box_in_features {_HEADS}.in_features",
    "MODEL.ROI_HEADS.NUM_CLASSES": f"{_HEADS}.num_classes",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": f"{_HEADS}.box_predictor.test_score_thresh",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": f"{_HEADS}.box_predictor.test_nms_thresh",
    "TEST.DETECTIONS_PER_IMAGE": f"{_HEADS}.box_predictor.test_topk_per_image",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": f"{_HEADS}.box_predictor.box2box_transform.weights",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": f"{_HEADS}.box_predictor.cls_agnostic_bbox_reg",
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": f"{_HEADS}.box_predictor.use_sigmoid_ce",
    "MODEL.ROI_BOX_HEAD.NORM": f"{_HEADS}.box_head.conv_norm",
    "MODEL.ROI_MASK_HEAD.NORM": f"{_HEADS}.mask_head.conv_norm",
    **{
        f"MODEL.ROI_{head}_HEAD.POOLER_{key}": (
            f"{_HEADS}.{head.lower()}_pooler.{name} {_HEADS}.pooler.{name}"
        )
        for head in ("BOX", "MASK", "KEYPOINT")
        for key, name in (
            ("RESOLUTION", "output_size"),
            ("SAMPLING_RATIO", "sampling_ratio"),
            ("TYPE", "pooler_type"),
        )
    },
}
_CLASSES = {
    "MODEL.META_ARCHITECTURE": "model",
    "MODEL.PROPOSAL_GENERATOR.NAME": _RPN,
    "MODEL.RPN.HEAD_NAME": f"{_RPN}.head",
    "MODEL.ANCHOR_GENERATOR.NAME": f"{_RPN}.anchor_generator",
    "MODEL.ROI_HEADS.NAME": _HEADS,
    "MODEL.ROI_MASK_HEAD.NAME": f"{_HEADS}.mask_head",
    "MODEL.ROI_KEYPOINT_HEAD.NAME": f"{_HEADS}.keypoint_head",
}
# Of the classes' constructors.
DEFAULTS: Mapping[str, Any] = {
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
}
_TARGET = "_target_"
_BODIES = {"FPN": "build_resnet_fpn_backbone", "ResNet": "build_resnet_backbone"}


def is_lazy(tree: Mapping[Any, Any]) -> bool:
    """Whether a configuration names the class of its model."""
    return isinstance(_at(tree, f"model.{_TARGET}"), str)


def lazy_keys(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """The values that decide the results, by the keys of `settings.DEFAULTS`."""
    found = {key: _first(tree, paths) for key, paths in _KEYS.items()}
    for key in ("MODEL.RPN.PRE_NMS_TOPK_TEST", "MODEL.RPN.POST_NMS_TOPK_TEST"):
        value = found[key]
        # Of training and of inference.
        found[key] = value[1] if isinstance(value, list) and len(value) == 2 else value
    found |= {key: _class(tree, path) for key, path in _CLASSES.items()}
    found["MODEL.MASK_ON"] = _at(tree, f"{_HEADS}.mask_head") is not None
    found["MODEL.KEYPOINT_ON"] = _at(tree, f"{_HEADS}.keypoint_head") is not None
    body = _class(tree, "model.backbone")
    found["MODEL.BACKBONE.NAME"] = _BODIES.get(str(body), body)
    for step in _steps(tree):
        found["INPUT.MIN_SIZE_TEST"] = step.get("short_edge_length")
        found["INPUT.MAX_SIZE_TEST"] = step.get("max_size")
    return {key: value for key, value in found.items() if value is not None}


def _steps(tree: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """The resize of the test photos."""
    steps = _at(tree, "dataloader.test.mapper.augmentations")
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, Mapping) and str(step.get(_TARGET)).endswith("ResizeShortestEdge"):
            yield step


def _first(tree: Mapping[Any, Any], paths: str) -> Any:
    values = (_at(tree, path) for path in paths.split())
    return next((value for value in values if value is not None), None)


def _class(tree: Mapping[Any, Any], path: str) -> str | None:
    name = _at(tree, f"{path}.{_TARGET}")
    return name.rpartition(".")[2] if isinstance(name, str) else None


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
