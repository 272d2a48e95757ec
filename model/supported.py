"""The supported models, their references and tests; docs/models.md shows them as tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Supported:
    """Models with the same reference and tests.

    Attributes:
        family: framework, or another heading.
        reference: what the results are compared with.
        tests: names of the test files that compare them, separated by spaces.
        models: for users.
    """

    family: str
    reference: str
    tests: str
    models: tuple[str, ...]


_EAGER, _LOOPS = "the eager network", "float64 loops"
_RECORDED = "recorded outputs of detectron2"
_PUBLISHED = "NumPy, after the published code; the framework was not run"

# fmt: off
SUPPORTED = (
    Supported("torchvision", "torchvision's own class", "test_parity_zoo test_native_zoo", (
        "`maskrcnn_resnet50_fpn_v2`, BatchNorm in pyramid and heads",
        "Mask R-CNN, ResNet-18/34",
        "Mask R-CNN, ResNet-50/101/152",
        "Mask R-CNN, ResNeXt-50 32x4d",
        "Mask R-CNN, ResNeXt-101 32x8d",
        "Mask R-CNN, MobileNet-V3-large",
        "Faster R-CNN, ResNet",
        "`fasterrcnn_resnet50_fpn`",
        "`fasterrcnn_resnet50_fpn_v2`",
        "Faster R-CNN, MobileNet-V3-large",
        "`keypointrcnn_resnet50_fpn`",
        "Keypoint R-CNN with masks",
    )),
    Supported("detectron2", _RECORDED, "test_detectron2_golden", (
        "Mask R-CNN R50-FPN", "Mask R-CNN X101-FPN", "Faster R-CNN R50-FPN",
    )),
    Supported("detectron2", _RECORDED, "test_detectron2_golden test_family_zoo", (
        "Mask R-CNN R50-C4", "Mask R-CNN R50-DC5", "Keypoint R-CNN R50-FPN",
    )),
    Supported("detectron2", _EAGER, "test_family_zoo", (
        "GroupNorm in body, pyramid and heads; several RPN convolutions; averaged pyramid",
        "class-agnostic boxes and masks, sigmoid scores",
    )),
    Supported("detectron2", "equal specs and tensors",
        "test_detectron2_golden test_detectron2_dialect",
        ("`.pth`, zoo `.pkl`, `config.yaml` or its `_BASE_`",)),
    Supported("detectron2", "equal specs", "test_detectron2_lazy_config",
        ("`config.yaml` of LazyConfig",)),
    Supported("mayaku", "mayaku 2.0.1's own detections, where it is installed",
        "test_mayaku_package test_mayaku_dialect",
        ("Faster, Mask and Keypoint R-CNN on ResNet + FPN, `.pth` of 2.x",)),
    Supported("The papers", _EAGER, "test_family_zoo", (
        "C4 with res5 at stride 1 on 7x7 RoIs, 300 proposals (`--spec`)",
        "RoIPool on one level (`--spec`)",
    )),
    Supported("The papers", "a worked example", "test_mask_head",
        ("masks by a sigmoid of the k-th channel, without competition between classes",)),
    Supported("MMDetection", _PUBLISHED,
        "test_mmdetection_outputs test_mmdetection_dialect test_family_zoo",
        ("Mask and Faster R-CNN, ResNet/ResNeXt + FPN, `.pth` of 1.x to 3.x",)),
    Supported("Matterport", _PUBLISHED,
        "test_matterport_pipeline test_matterport_dialect test_family_zoo",
        ("Mask R-CNN, ResNet-50/101 + FPN, `.h5`",)),
    Supported("Pooling", _LOOPS, "test_pooling test_pooling_family test_native_pool",
        ("RoIAlign, average, 1 to 4 samples (`roi_align`)",)),
    Supported("Pooling", _LOOPS, "test_pooling test_pooling_family", (
        "RoIAlign, adaptive (`roi_align`)",
        "RoIAlign, maximum (`roi_align`)",
        "RoIAlign, samples at thirds (`roi_align`)",
        "RoIPool, rounded or floored (`roi_pool`)",
        "RoIWarp (`roi_warp`)",
        "crop-and-resize to P (`crop_and_resize`)",
        "crop-and-resize to 2P, 2x2 max (`crop_and_resize`)",
        "PrRoIPool (`prroi_pool`)",
    )),
)
# fmt: on
