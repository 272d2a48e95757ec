"""COCO annotations of the evaluation photos: read, and refused where no AP can be made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.errors import ArtifactError, UsageError
from model.spec import ModelSpec
from runtime.labelled import require_common_categories
from runtime.rle import area

# Three corners.
_LEAST_NUMBERS = 6
# What rows of another shape than COCO's raise where they are looked at.
_NOT_THEIRS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


def read_annotations(path: Path) -> Mapping[str, Any]:
    """COCO instances; every row's boxes and outlines are what pycocotools takes.

    Raises:
        UsageError: not readable, or no COCO annotations; the row is named.
    """
    try:
        truth = json.loads(path.read_text("utf-8"))
        for image in truth["images"]:
            _require(image, id=int, file_name=str, height=int, width=int)
        sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
        known = {_category(category) for category in truth["categories"]}
        for annotation in truth["annotations"]:
            _check(annotation, sizes, known)
    except _NOT_THEIRS as error:
        raise UsageError(
            f"--annotations {path}: not COCO annotations ({' '.join(str(error).split())[:100]})"
        ) from error
    names = [Path(image["file_name"]).name for image in truth["images"]]
    if len(set(names)) < len(names):
        raise UsageError(f"--annotations {path}: two images have the same file name")
    answer: Mapping[str, Any] = truth
    return answer


def _category(category: Mapping[str, Any]) -> int:
    _require(category, id=int)
    return int(category["id"])


def _check(annotation: Any, sizes: Mapping[int, Sequence[int]], known: set[int]) -> None:
    annotation.setdefault("iscrowd", 0)
    _require(annotation, image_id=int, category_id=int, bbox=list, area=(int, float), iscrowd=int)
    named = f"of annotation {annotation.get('id', '?')}"
    if annotation["category_id"] not in known:
        raise ValueError(f"category_id {annotation['category_id']} {named} is no category")
    if not _are_numbers(annotation["bbox"]) or len(annotation["bbox"]) != 4:
        raise ValueError(f"bbox {named}: expected four numbers")
    if not _are_numbers([annotation["area"]]) or annotation["area"] < 0:
        raise ValueError(f"area {named}: expected a number of pixels")
    size = sizes.get(annotation["image_id"])
    outline = annotation.get("segmentation")
    # Outlines of images that are not in the file are never looked at.
    if outline and size is not None and not _is_outline(outline, size):
        raise ValueError(f"segmentation {named}: expected polygons, or run lengths of {size}")


def _is_outline(outline: Any, size: Sequence[int]) -> bool:
    if isinstance(outline, list):
        return all(
            isinstance(polygon, list)
            and len(polygon) >= _LEAST_NUMBERS
            and len(polygon) % 2 == 0
            and _are_numbers(polygon)
            for polygon in outline
        )
    if not isinstance(outline, dict) or outline.get("size") != size:
        return False
    counts = outline.get("counts")
    if isinstance(counts, str):
        return _fills(counts, size)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return False
    return bool(sum(counts) == size[0] * size[1])


def _fills(text: str, size: Sequence[int]) -> bool:
    """Compressed run lengths: pycocotools reads beyond those that are damaged."""
    try:
        area({"size": list(size), "counts": text})
    except ArtifactError:
        return False
    return True


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _require(row: Mapping[str, Any], **kinds: type | tuple[type, ...]) -> None:
    for field, kind in kinds.items():
        if not isinstance(row[field], kind):
            raise TypeError(f"{field}: {row[field]!r}")


def image_ids(photos: Sequence[Path], truth: Mapping[str, Any]) -> list[int]:
    """The annotations' id of every photo.

    Raises:
        UsageError: a photo that the annotations do not name.
    """
    known = {Path(str(image["file_name"])).name: int(image["id"]) for image in truth["images"]}
    missing = [photo.name for photo in photos if photo.name not in known]
    if missing:
        raise UsageError(
            f"--annotations: {len(missing)} of {len(photos)} photos are not in it, for instance "
            f"{missing[0]}; give the annotations of --eval-images"
        )
    return [known[photo.name] for photo in photos]


def require_sizes(shapes: Mapping[Path, tuple[int, int]], truth: Mapping[str, Any]) -> None:
    """Refuse annotations of photos that were resized or turned since.

    Args:
        shapes: height and width in pixels of every photo, as it is decoded.
        truth: annotations that name them.

    Raises:
        UsageError: a photo of another size; pycocotools would overlap nothing and say nothing.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    photos = list(shapes)
    for photo, image_id in zip(photos, image_ids(photos, truth), strict=True):
        if sizes[image_id] != shapes[photo]:
            (height, width), (wanted_height, wanted_width) = shapes[photo], sizes[image_id]
            raise UsageError(
                f"--annotations: {photo.name} is {height} x {width}, they say {wanted_height} x "
                f"{wanted_width} (height x width); give the photos that were annotated"
            )


def require_truth(photos: Sequence[Path], truth: Mapping[str, Any], spec: ModelSpec) -> None:
    """Refuse annotations that no AP can be made of.

    Raises:
        UsageError: no object on any of the photos, none of a category that the model answers, or
            objects without an outline for mask AP.
    """
    ids = set(image_ids(photos, truth))
    objects = [one for one in truth["annotations"] if one["image_id"] in ids]
    if not objects:
        raise UsageError(
            f"--annotations: no object on any of the {len(photos)} photos of --eval-images; give "
            "their annotations, or leave --annotations out"
        )
    require_common_categories(spec.classes, truth, Path("--annotations"))
    bare = sum(not one.get("segmentation") for one in objects)
    if spec.mask is not None and bare:
        raise UsageError(
            f"--annotations: {bare} of {len(objects)} objects have no segmentation, which mask AP "
            "needs; expected polygons or run lengths, or leave --annotations out"
        )
