"""One annotation with all fields that COCO AP reads; what is missing is derived from the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.annotations.segmentations import Mask, UnusableError, has_mask, read_mask
from runtime.annotations.values import Json, is_missing, number, whole

_BOX_NUMBERS = 4
_LARGEST_COORDINATE_PX = 1e6
_KEYPOINT_NUMBERS = 3


@dataclass(frozen=True, slots=True)
class CleanObject:
    """An annotation as COCO AP reads it, without ids.

    Attributes:
        fields: `iscrowd`, `area`, `bbox`, and `segmentation`, `keypoints` and `num_keypoints` if
            it has them.
        derived: the fields that the file lacked.
        given_box: the file's box, xywh in pixels; None if it was derived.
        mask: None if it has none, or if masks are not needed.
    """

    fields: Json
    derived: tuple[str, ...]
    given_box: Sequence[float] | None
    mask: Mask | None


def clean_object(
    annotation: Mapping[str, Any], size_hw: tuple[int, int], needs_mask: bool, needs_keypoints: bool
) -> CleanObject:
    """Read and complete an annotation.

    Args:
        annotation: of the file.
        size_hw: height and width of its photo.
        needs_mask: whether masks are scored; else a mask only replaces a missing box or area.
        needs_keypoints: whether keypoints are scored.

    Raises:
        UnusableError: a field that cannot be used, or neither a box nor a mask.
        MissingDependencyError: pycocotools is not installed.
    """
    derived = []
    box = _given_box(annotation.get("bbox"))
    area = _given_area(annotation.get("area"))
    # Tools write 0 for what they do not know.
    lacks_box = box is None or box[2] == box[3] == 0
    segmentation = annotation.get("segmentation")
    mask = None
    if has_mask(segmentation) and (needs_mask or lacks_box or not area):
        mask = read_mask(segmentation, size_hw)
    if is_missing(annotation.get("iscrowd")):
        derived.append("iscrowd")
    given_box = box
    if mask is not None and lacks_box:
        box, given_box = _box_of(mask), None
        derived.append("bbox")
    if box is None:
        raise UnusableError("bbox", "four numbers of pixels, or a segmentation", None)
    if area is None or (area == 0 and box[2] * box[3] > 0):
        area = _area_of(mask, box)
        derived.append("area")
    fields: Json = {"iscrowd": _iscrowd(annotation.get("iscrowd")), "area": area, "bbox": [*box]}
    if mask is not None and needs_mask:
        fields["segmentation"] = mask.rle
    if needs_keypoints and not is_missing(annotation.get("keypoints")):
        fields |= _keypoints(annotation)
    return CleanObject(fields, tuple(derived), given_box, mask if needs_mask else None)


def _given_box(value: object) -> list[float] | None:
    if is_missing(value) or value == []:
        return None
    numbers = [number(one) for one in value] if isinstance(value, list) else []
    box = [n for n in numbers if n is not None and abs(n) <= _LARGEST_COORDINATE_PX]
    if len(box) != _BOX_NUMBERS or len(numbers) != _BOX_NUMBERS:
        raise UnusableError("bbox", "four numbers of pixels [x, y, width, height]", value)
    if min(box[2:]) < 0:
        raise UnusableError("bbox", "[x, y, width, height] with sides from 0", value)
    return box


def _given_area(value: object) -> float | None:
    if is_missing(value):
        return None
    area = number(value)
    if area is None or area < 0:
        raise UnusableError("area", "a number of pixels", value)
    return area


def _iscrowd(value: object) -> int:
    if is_missing(value) or isinstance(value, bool):
        return int(value is True)
    flag = whole(value)
    if flag not in (0, 1):
        raise UnusableError("iscrowd", "0 or 1", value)
    return flag


def _box_of(mask: Mask) -> list[float]:
    """The box of the polygons' points, as in COCO's own files; of the pixels for run lengths."""
    if not mask.polygons:
        from pycocotools import mask as coco_mask

        return [float(side) for side in coco_mask.toBbox(mask.rle)]
    xs = [x for ring in mask.polygons for x in ring[::2]]
    ys = [y for ring in mask.polygons for y in ring[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _area_of(mask: Mask | None, box: Sequence[float]) -> float:
    if mask is None:
        return box[2] * box[3]
    from pycocotools import mask as coco_mask

    return float(coco_mask.area(mask.rle))


def _keypoints(annotation: Mapping[str, Any]) -> Json:
    """The keypoints and how many of them are labeled, which is derived where it is missing."""
    value = annotation["keypoints"]
    numbers = [number(one) for one in value] if isinstance(value, list) else [None]
    if None in numbers or len(numbers) % _KEYPOINT_NUMBERS:
        raise UnusableError("keypoints", "numbers [x, y, visibility, …]", value)
    keypoints = [one for one in numbers if one is not None]
    count = annotation.get("num_keypoints")
    labeled = sum(v > 0 for v in keypoints[2::3]) if is_missing(count) else whole(count)
    if labeled is None or labeled < 0:
        raise UnusableError("num_keypoints", "a number of keypoints", count)
    return {"keypoints": keypoints, "num_keypoints": labeled}
