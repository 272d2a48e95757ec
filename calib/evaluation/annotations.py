"""COCO annotations of the evaluation photos: read, and refused where no AP can be made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.errors import ArtifactError, UsageError, in_brief
from model.spec import ModelSpec
from runtime.compare.coco_annotations import require_common_categories
from runtime.masks.rle import area

_BOX_NUMBERS = 4
# Beyond any photo; pycocotools walks along a polygon's sides pixel by pixel.
_FARTHEST_PX = 1e6
_SHOWN_LETTERS = 60


def read_annotations(path: Path) -> Mapping[str, Any]:
    """COCO instances.

    Raises:
        UsageError: not readable, or no COCO annotations.
    """
    try:
        truth = json.loads(path.read_text("utf-8"))
        for image in truth["images"]:
            _require(image, id=int, file_name=str, height=int, width=int)
        for category in truth["categories"]:
            _require(category, id=int)
        for annotation in truth["annotations"]:
            annotation.setdefault("iscrowd", 0)
            _require(annotation, image_id=int, category_id=int, bbox=list, area=(int, float))
            _require(annotation, iscrowd=int)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"--annotations {path}: expected COCO annotations ({in_brief(error, 100)})"
        ) from error
    names = [Path(image["file_name"]).name for image in truth["images"]]
    if len(set(names)) < len(names):
        raise UsageError(f"--annotations {path}: two images have the same file name; rename one")
    answer: Mapping[str, Any] = truth
    return answer


def _require(row: Mapping[str, Any], **kinds: type | tuple[type, ...]) -> None:
    for field, kind in kinds.items():
        if field not in row:
            raise ValueError(f"no {field} in {row}")
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
            turned = (height, width) == (wanted_width, wanted_height)
            remedy = (
                "its EXIF orientation turns it, and the annotations are of the photo unturned; "
                "leave it out, or turn one of the two"
                if turned
                else "give the photos that were annotated"
            )
            raise UsageError(
                f"--annotations: {photo.name} is {height} x {width}, annotated as "
                f"{wanted_height} x {wanted_width} (height x width); {remedy}"
            )


def require_truth(photos: Sequence[Path], truth: Mapping[str, Any], spec: ModelSpec) -> None:
    """Refuse annotations that no AP can be made of.

    Only objects on the photos, and of a category of the file, are looked at: others do not count.

    Raises:
        UsageError: no object on any of the photos, none of a category that the model answers, one
            that pycocotools cannot take, or objects without an outline for mask AP.
    """
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    ids = set(image_ids(photos, truth))
    objects = [
        one
        for one in truth["annotations"]
        if one["image_id"] in ids and one["category_id"] in categories
    ]
    if not objects:
        raise UsageError(
            f"--annotations: no object on any of the {len(photos)} photos of --eval-images; give "
            "their annotations, or leave --annotations out"
        )
    require_common_categories(spec.classes, truth, Path("--annotations"))
    for number, one in enumerate(objects):
        wrong = _wrong(one, sizes[one["image_id"]], with_outline=spec.mask is not None)
        if wrong is not None:
            named = one.get("id", f"number {number}")
            raise UsageError(f"--annotations: object {named}: {wrong}; correct the file")
    bare = sum(not one.get("segmentation") for one in objects)
    if spec.mask is not None and bare:
        raise UsageError(
            f"--annotations: {bare} of {len(objects)} objects have no segmentation, which mask AP "
            "needs; expected polygons or run lengths, or leave --annotations out"
        )


def _wrong(one: Mapping[str, Any], size: Sequence[int], with_outline: bool) -> str | None:
    """What pycocotools would fail on, or read beyond."""
    if len(one["bbox"]) != _BOX_NUMBERS or not _are_pixels(one["bbox"]):
        return f"bbox: expected four numbers of pixels, got {_shown(one['bbox'])}"
    if not math.isfinite(one["area"]) or one["area"] < 0:
        return f"area: expected a number of pixels, got {one['area']}"
    outline = one.get("segmentation")
    if with_outline and outline and not _is_outline(outline, size):
        expected = f"polygons of three corners and more, or run lengths of {size}"
        return f"segmentation: expected {expected}, got {_shown(outline)}"
    return None


def _is_outline(outline: Any, size: Sequence[int]) -> bool:
    if isinstance(outline, list):
        # The first tells pycocotools what they all are: four numbers would be a box.
        lengths = [len(one) if isinstance(one, list) else 0 for one in outline]
        return lengths[0] > _BOX_NUMBERS and min(lengths) > 1 and all(map(_are_pixels, outline))
    if not isinstance(outline, dict) or outline.get("size") != size:
        return False
    counts = outline.get("counts")
    if isinstance(counts, str):
        return _fills(counts, size)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return False
    return bool(sum(counts) == size[0] * size[1])


def _fills(text: str, size: Sequence[int]) -> bool:
    """Whether compressed run lengths are whole; pycocotools reads beyond those that are not."""
    try:
        area({"size": list(size), "counts": text})
    except ArtifactError:
        return False
    return True


def _are_pixels(values: Sequence[Any]) -> bool:
    return all(type(value) in (int, float) and abs(value) <= _FARTHEST_PX for value in values)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_LETTERS else text[:_SHOWN_LETTERS] + "…"
