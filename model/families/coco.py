"""COCO's classes, as frameworks number them."""

from __future__ import annotations

from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from model.spec import ClassSpec

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
    """Names for `count` foreground classes that nobody named."""
    first = ("__background__",) if background else ()
    start = int(background)
    return ClassSpec((*first, *(f"class_{i + start}" for i in range(count))))
