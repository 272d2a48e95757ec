"""detectron2's models in narrow: specs, and the weights and configurations that mean them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from model.families.detectron2.names import original_name
from model.families.detectron2.settings import BASES
from model.mask_rcnn import MaskRCNN
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    FpnSpec,
    KeypointHeadSpec,
    MaskHeadSpec,
    ModelSpec,
    PoolerSpec,
    PreprocessSpec,
    ResNetSpec,
    RoIStageSpec,
    RpnSpec,
)

SIZES, RATIOS = (32.0, 64.0, 128.0, 256.0, 512.0), (0.5, 1.0, 2.0)
BODY = ResNetSpec((3, 4, 6, 3), "bottleneck", 8, (8, 8, 8, 8), (16, 16, 16, 16), stride_in_1x1=True)
PREPROCESS = PreprocessSpec(
    800, 1333, "detectron2", "pillow-bilinear", "bgr", 255.0, (103.53, 116.28, 123.675), (1.0,) * 3
)


def _pooler(side: int, *strides: int, **more: Any) -> PoolerSpec:
    return PoolerSpec(side, 0, True, strides, inner_eps=1e-8, outer_eps=0.0, **more)


def _anchors(levels: int) -> AnchorSpec:
    sizes = tuple((s,) for s in SIZES) if levels == 5 else (SIZES,) * levels
    return AnchorSpec(sizes, (RATIOS,) * levels, "size-major", False, 0.0, "nominal")


BOX = BoxHeadSpec(
    _pooler(7, 4, 8, 16, 32), fc_widths=(16, 16), norm="none", background="last", min_size=0.0,
    to_image="clip",
)  # fmt: skip
MASK = MaskHeadSpec(_pooler(14, 4, 8, 16, 32), (8,) * 4, 8, paste="float", threshold_inclusive=True)
FPN = ModelSpec(
    dialect="detectron2",
    architecture="mask_rcnn_R_50_FPN",
    body=BODY,
    classes=ClassSpec(("class_0", "class_1", "class_2")),
    fpn=FpnSpec(8),
    preprocess=PREPROCESS,
    anchors=_anchors(5),
    rpn=RpnSpec((8,), min_size=0.0, min_size_inclusive=False),
    box=BOX,
    mask=MASK,
)
C4 = replace(
    FPN,
    architecture="mask_rcnn_R_50_C4",
    body=replace(
        BODY, blocks=(3, 4, 6), widths=(8,) * 3, channels=(16,) * 3, dilations=(1,) * 3,
        outputs=(2,),
    ),
    fpn=None,
    preprocess=replace(PREPROCESS, size_divisor=1),
    anchors=_anchors(1),
    rpn=replace(FPN.rpn, conv_widths=(16,), pre_nms=6000),
    roi_stage=RoIStageSpec(3, 16, 24, stride_in_1x1=True),
    box=replace(BOX, pooler=_pooler(14, 16), fc_widths=()),
    mask=replace(MASK, pooler=_pooler(14, 16), conv_widths=()),
)  # fmt: skip
DC5 = replace(
    FPN,
    architecture="mask_rcnn_R_50_DC5",
    body=replace(BODY, dilations=(1, 1, 1, 2), outputs=(3,)),
    fpn=None,
    preprocess=replace(PREPROCESS, size_divisor=1),
    anchors=_anchors(1),
    rpn=replace(FPN.rpn, conv_widths=(16,), pre_nms=6000),
    box=replace(BOX, pooler=_pooler(7, 16)),
    mask=replace(MASK, pooler=_pooler(14, 16)),
)
KEYPOINTS = replace(
    FPN,
    architecture="keypoint_rcnn_R_50_FPN",
    classes=ClassSpec(("person",), (1,)),
    mask=None,
    keypoint=KeypointHeadSpec(_pooler(14, 4, 8, 16, 32), (8,) * 8, score="softmax"),
)


# Each model with the settings of its configuration beyond its base file.
CASES: dict[str, tuple[ModelSpec, str, dict[str, Any]]] = {
    "fpn": (FPN, "FPN", {}),
    "c4": (C4, "C4", {}),
    "dc5": (DC5, "DilatedC5", {}),
    "keypoints": (KEYPOINTS, "FPN", {"MODEL.KEYPOINT_ON": True, "MODEL.ROI_HEADS.NUM_CLASSES": 1}),
    "boxes": (replace(FPN, architecture="faster_rcnn_R_50_FPN", mask=None), "FPN", {}),
    "rgb": (
        replace(
            FPN,
            preprocess=replace(
                PREPROCESS, short_side=320, long_side=500, channel_order="rgb",
                mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375),
            ),
        ),
        "FPN",
        {
            "INPUT.FORMAT": "RGB",
            "INPUT.MIN_SIZE_TEST": 320,
            "INPUT.MAX_SIZE_TEST": 500,
            "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
            "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
        },
    ),
    "agnostic": (
        replace(
            FPN,
            box=replace(BOX, class_agnostic=True, scoring="sigmoid"),
            mask=replace(MASK, class_agnostic=True),
        ),
        "FPN",
        {
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True,
            "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
        },
    ),
    "group-norm": (
        replace(
            FPN,
            body=replace(
                BODY, norm="group_norm", stem_channels=32, widths=(32,) * 4, channels=(64,) * 4
            ),
            fpn=FpnSpec(32, "group_norm", fuse="average"),
            rpn=replace(FPN.rpn, conv_widths=(8, 8)),
            box=replace(BOX, conv_widths=(32, 32), fc_widths=(16,), norm="group_norm"),
            mask=replace(MASK, conv_widths=(32, 32), norm="group_norm"),
        ),
        "FPN",
        {"MODEL.RESNETS.NORM": "GN", "MODEL.FPN.FUSE_TYPE": "avg"},
    ),
    "no-norm-r18": (
        replace(
            FPN,
            architecture="mask_rcnn_R_18_FPN",
            body=ResNetSpec((2, 2, 2, 2), "basic", 8, (8,) * 4, (8,) * 4, norm="none"),
        ),
        "FPN",
        {"MODEL.RESNETS.DEPTH": 18},
    ),
    "resnext-from-res3": (
        replace(
            FPN,
            architecture="mask_rcnn_X_101_4x2d_FPN",
            body=replace(BODY, blocks=(3, 4, 23, 3), groups=4, stride_in_1x1=False,
                         outputs=(1, 2, 3)),
            anchors=AnchorSpec(((16.0, 8.0),) * 4, ((1.0, 3.0),) * 4, "size-major", False, 0.5,
                               "nominal"),
            box=replace(BOX, pooler=_pooler(7, 8, 16, 32), detections=30, candidates=2000),
            mask=replace(MASK, pooler=replace(_pooler(14, 8, 16, 32), sampling_ratio=2,
                                              aligned=False)),
        ),
        "FPN",
        {
            "MODEL.RESNETS.STRIDE_IN_1X1": False,
            "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
            "MODEL.RPN.IN_FEATURES": ["p3", "p4", "p5", "p6"],
            "MODEL.ROI_HEADS.IN_FEATURES": ["p3", "p4", "p5"],
            "MODEL.ANCHOR_GENERATOR.SIZES": [[16, 8]],
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0, 3.0]],
            "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
            "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
            "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
            "TEST.DETECTIONS_PER_IMAGE": 30,
        },
    ),
}  # fmt: skip


def state(spec: ModelSpec) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors = MaskRCNN(spec).state_dict()
    return {
        original_name(name, spec): tensor
        for name, tensor in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


@cache
def state_of(case: str) -> dict[str, torch.Tensor]:
    return state(CASES[case][0])


def saved(folder: Path, spec: ModelSpec) -> Path:
    path = folder / "model_final.pth"
    torch.save({"model": state(spec), "iteration": 9}, path)
    return path


def tree_of(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
        at[leaf] = value
    return tree


def configuration(case: str) -> dict[str, Any]:
    spec, base, settings = CASES[case]
    common = {
        "MODEL.MASK_ON": spec.mask is not None,
        "MODEL.ROI_HEADS.NUM_CLASSES": spec.num_foreground,
    }
    return {**BASES[f"Base-RCNN-{base}.yaml"], **common, **settings}
