"""The supported models, each with its reference and tests; docs/models.md shows them as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Supported:
    """One kind of model.

    Attributes:
        name: for users.
        reference: what its results are compared with.
        tests: names of the test files that compare them, separated by spaces.
    """

    name: str
    reference: str
    tests: str


def _rows(reference: str, tests: str, *names: str) -> tuple[Supported, ...]:
    return tuple(Supported(name, reference, tests) for name in names)


_RECORDED = "recorded outputs of detectron2"
_EAGER = "the eager network"
_PUBLISHED = "NumPy, after the published code; the framework was not run"
_LOOPS = "float64 loops"

SUPPORTED: Mapping[str, tuple[Supported, ...]] = {
    "torchvision": _rows(
        "torchvision's own class",
        "test_parity_zoo test_native_zoo",
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
    ),
    "detectron2": (
        *_rows(
            _RECORDED,
            "test_detectron2_golden",
            "Mask R-CNN R50-FPN",
            "Mask R-CNN X101-FPN",
            "Faster R-CNN R50-FPN",
        ),
        *_rows(
            _RECORDED,
            "test_detectron2_golden test_family_zoo",
            "Mask R-CNN R50-C4",
            "Mask R-CNN R50-DC5",
            "Keypoint R-CNN R50-FPN",
        ),
        *_rows(
            _EAGER,
            "test_family_zoo",
            "GroupNorm in body, pyramid and heads; several RPN convolutions; averaged pyramid",
            "class-agnostic boxes and masks, sigmoid scores",
        ),
        *_rows(
            "equal specs and tensors",
            "test_detectron2_golden test_detectron2_dialect",
            "`.pth`, zoo `.pkl`, `config.yaml` or its `_BASE_`",
        ),
    ),
    "The papers": (
        *_rows(
            _EAGER,
            "test_family_zoo",
            "C4 with res5 at stride 1 on 7x7 RoIs, 300 proposals (`--spec`)",
            "RoIPool on one level (`--spec`)",
        ),
        *_rows(
            "a worked example",
            "test_mask_head",
            "masks by a sigmoid of the k-th channel, without competition between classes",
        ),
    ),
    "MMDetection": _rows(
        _PUBLISHED,
        "test_mmdetection_outputs test_mmdetection_dialect test_family_zoo",
        "Mask and Faster R-CNN, ResNet/ResNeXt + FPN, `.pth` of 1.x to 3.x",
    ),
    "Matterport": _rows(
        _PUBLISHED,
        "test_matterport_pipeline test_matterport_dialect test_family_zoo",
        "Mask R-CNN, ResNet-50/101 + FPN, `.h5`",
    ),
    "Pooling": (
        *_rows(
            _LOOPS,
            "test_pooling test_pooling_family test_native_pool",
            "RoIAlign, average, 1 to 4 samples (`roi_align`)",
        ),
        *_rows(
            _LOOPS,
            "test_pooling test_pooling_family",
            "RoIAlign, adaptive (`roi_align`)",
            "RoIAlign, maximum (`roi_align`)",
            "RoIAlign, samples at thirds (`roi_align`)",
            "RoIPool, rounded or floored (`roi_pool`)",
            "RoIWarp (`roi_warp`)",
            "crop-and-resize to P (`crop_and_resize`)",
            "crop-and-resize to 2P, 2x2 max (`crop_and_resize`)",
            "PrRoIPool (`prroi_pool`)",
        ),
    ),
}
