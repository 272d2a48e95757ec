"""COCO's classes as frameworks number them, and names for unnamed classes and keypoints."""

from __future__ import annotations

from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from model.spec import ClassSpec
from model.spec.heads import COCO_KEYPOINTS

# COCO's category ids run to 90 with gaps, which torchvision keeps as classes named "N/A".
_WITH_GAPS: tuple[str, ...] = tuple(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])


def with_gaps() -> ClassSpec:
    """91 labels, the background first; a label is its own category id (torchvision)."""
    return ClassSpec(_WITH_GAPS)


def without_gaps(*, background: bool = False) -> ClassSpec:
    """80 labels in the order of their ids (detectron2, MMDetection), or 81 with the background."""
    known = [(n, i) for i, n in enumerate(_WITH_GAPS) if i > 0 and n != "N/A"]
    first = [("__background__", 0)] if background else []
    names, ids = zip(*first, *known, strict=True)
    return ClassSpec(names, ids)


def numbered(count: int, *, background: bool) -> ClassSpec:
    """Names for `count` foreground classes without names."""
    first = ("__background__",) if background else ()
    start = int(background)
    return ClassSpec((*first, *(f"class_{i + start}" for i in range(count))))


def keypoints(count: int) -> tuple[str, ...]:
    """COCO's names of its 17 keypoints, or numbered names for another count."""
    if count == len(COCO_KEYPOINTS):
        return COCO_KEYPOINTS
    return tuple(f"keypoint_{i}" for i in range(count))
