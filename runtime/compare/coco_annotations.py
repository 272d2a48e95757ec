"""COCO instance annotations: read, matched with photos, and checked before AP is computed."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from model.errors import ArtifactError, UsageError
from model.spec import ClassSpec, ModelSpec
from runtime.compare.coco_ap import ApResult, evaluate
from runtime.compare.coco_inputs import IouType
from runtime.masks.rle import area

# An integer or a string.
ImageId = Any
_SHOWN_LETTERS = 80
# Fields of every entry and their types; integers and strings are ids.
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": (str,)},
    "categories": {"id": (int, str)},
    "annotations": {"image_id": (int, str), "category_id": (int, str)},
}
_BOX_NUMBERS = 4
# pycocotools follows a polygon's edges pixel by pixel.
_LARGEST_COORDINATE_PX = 1e6


@dataclass(frozen=True, slots=True)
class CocoAnnotations:
    """COCO instances: `document` has `images`, `categories` and `annotations`."""

    path: Path
    document: Mapping[str, Any]

    @property
    def sizes_hw(self) -> dict[ImageId, tuple[int, int] | None]:
        """Height and width by image id; None for images without."""
        return {
            image["id"]: (image["height"], image["width"])
            if _is_number(image.get("height")) and _is_number(image.get("width"))
            else None
            for image in self.document["images"]
        }


def read_annotations(path: Path) -> CocoAnnotations:
    """COCO instances; objects without `iscrowd` count as no crowd.

    Raises:
        UsageError: not readable, or an entry lacks an id or a file name.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not a readable JSON file ({error}); expected COCO annotations"
        ) from error
    if not isinstance(document, dict) or not set(_FIELDS) <= set(document):
        raise UsageError(f"{path}: expected COCO's images, annotations and categories")
    if not all(isinstance(document[part], list) for part in _FIELDS):
        raise UsageError(f"{path}: expected lists of images, annotations and categories")
    for part, fields in _FIELDS.items():
        for name, types in fields.items():
            if not all(_has(entry, name, types) for entry in document[part]):
                expected = "an integer or a string" if int in types else "a string"
                raise UsageError(f"{path}: {part}: expected {expected} as '{name}' of every entry")
    for annotation in document["annotations"]:
        annotation.setdefault("iscrowd", 0)
    return CocoAnnotations(path, document)


def labeled_photos(annotations: CocoAnnotations, folder: Path) -> dict[ImageId, Path]:
    """Annotated photos in a folder, by image id; prints how many are missing.

    A file name may have a folder: below this one, or, where there is no such file, of another
    machine, in which case only the name counts.

    Raises:
        UsageError: there is none, or several images have the name of one file.
    """
    images = annotations.document["images"]
    names = Counter(PurePath(image["file_name"]).name for image in images)
    photos = {}
    for image in images:
        name = PurePath(image["file_name"]).name
        path = folder / image["file_name"]
        if not os.path.isfile(path):
            path = folder / name
            if not os.path.isfile(path):
                continue
            if names[name] > 1:
                raise UsageError(
                    f"{annotations.path}: {names[name]} images are named {name}; expected their "
                    f"folders below {folder}"
                )
        photos[image["id"]] = path
    if not photos:
        raise UsageError(
            f"{folder}: has none of the {len(images)} labeled photos; expected for instance "
            f"{next(iter(names), str(folder))[:_SHOWN_LETTERS]}"
        )
    if len(photos) < len(images):
        missing = len(images) - len(photos)
        print(f"{missing} of {len(images)} labeled photos are not in {folder}; skipped")
    return photos


def require_objects(
    annotations: CocoAnnotations, image_ids: Collection[ImageId], spec: ModelSpec
) -> None:
    """Refuse annotations that AP cannot be computed from.

    Only objects on these images and of the file's own categories are checked: others do not count.

    Raises:
        UsageError: no object of a category that the model can predict, one that pycocotools cannot
            process, or an object without a segmentation, which mask AP needs.
    """
    path, document = annotations.path, annotations.document
    _require_common_categories(spec.classes, annotations)
    categories = {category["id"] for category in document["categories"]}
    ids = set(image_ids)
    objects = [
        one
        for one in document["annotations"]
        if one["image_id"] in ids and one["category_id"] in categories
    ]
    if not objects:
        raise UsageError(
            f"{path}: no objects on any of the {len(ids)} photos; use annotations of these "
            "photos, or omit --annotations"
        )
    sizes = annotations.sizes_hw
    for number, one in enumerate(objects):
        size_hw = sizes[one["image_id"]] if spec.mask is not None else None
        wrong = _wrong(one, size_hw, with_mask=spec.mask is not None)
        if wrong is not None:
            name = one.get("id", f"number {number}")
            raise UsageError(f"{path}: object {name}: {wrong}; correct the file")
    bare = sum(not one.get("segmentation") for one in objects)
    if spec.mask is not None and bare:
        raise UsageError(
            f"{path}: {bare} of {len(objects)} objects have no segmentation, which mask AP needs; "
            "add polygons or run lengths, or omit --annotations"
        )


def require_sizes(
    annotations: CocoAnnotations, sizes_hw: Mapping[ImageId, tuple[int, int]]
) -> None:
    """Refuse photos that were resized or rotated after annotation: their AP would be near zero.

    Args:
        annotations: of the photos.
        sizes_hw: height and width of every decoded photo, by image id.

    Raises:
        UsageError: a photo of another size.
    """
    annotated = annotations.sizes_hw
    names = {image["id"]: image["file_name"] for image in annotations.document["images"]}
    for image_id, (height, width) in sizes_hw.items():
        expected = annotated[image_id]
        if expected in (None, (height, width)):
            continue
        remedy = (
            "its EXIF orientation rotates it, and the annotations are of the photo before that; "
            "leave it out, or rotate one of the two"
            if expected == (width, height)
            else "give the photos that were annotated"
        )
        raise UsageError(
            f"{annotations.path}: {names[image_id]} is {height} x {width}, annotated as "
            f"{expected[0]} x {expected[1]} (height x width); {remedy}"
        )


def ap_of(
    rows: Sequence[Mapping[str, Any]],
    annotations: CocoAnnotations,
    iou_type: IouType,
    image_ids: Sequence[ImageId],
) -> ApResult:
    """COCO AP of result rows on these images; see `coco_ap.evaluate`.

    Raises:
        UsageError: annotations that pycocotools cannot use.
        MissingDependencyError: pycocotools is not installed.
    """
    try:
        return evaluate(annotations.document, rows, iou_type, image_ids)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"{annotations.path}: pycocotools cannot use it ({type(error).__name__}: {error}); "
            "expected COCO instances with sizes of images and boxes, areas, segmentations"
        ) from error


def _has(entry: object, name: str, types: tuple[type, ...]) -> bool:
    value = entry.get(name) if isinstance(entry, dict) else None
    return isinstance(value, types) and not isinstance(value, bool)


def _require_common_categories(classes: ClassSpec, annotations: CocoAnnotations) -> None:
    """AP would be 0, without any error, if category ids differed between model and labels."""
    theirs = {category["id"] for category in annotations.document["categories"]}
    if not theirs & {classes.dataset_id(label) for label in range(len(classes.names))}:
        # The first five, numbers before strings.
        shown = sorted(theirs, key=lambda one: (isinstance(one, str), one))[:5]
        raise UsageError(
            f"{annotations.path}: none of its category ids {shown} is one that the model can "
            "predict; set 'classes.dataset_ids' with --spec when you export"
        )


def _wrong(one: Mapping[str, Any], size_hw: tuple[int, int] | None, with_mask: bool) -> str | None:
    """What pycocotools would fail on, or read out of bounds."""
    box, outline = one.get("bbox"), one.get("segmentation")
    area_px: Any = one.get("area")
    if not isinstance(box, list) or len(box) != _BOX_NUMBERS or not _are_pixels(box):
        return f"bbox: expected four numbers of pixels, got {_shown(box)}"
    if not _is_number(area_px) or not math.isfinite(area_px) or area_px < 0:
        return f"area: expected a number of pixels, got {_shown(area_px)}"
    if not isinstance(one["iscrowd"], int):
        return f"iscrowd: expected 0 or 1, got {_shown(one['iscrowd'])}"
    if not with_mask or not outline:
        return None
    if size_hw is None:
        return f"expected height and width of image {one['image_id']}, which mask AP needs"
    if not _is_outline(outline, list(size_hw)):
        expected = f"polygons of three corners and more, or run lengths of {list(size_hw)}"
        return f"segmentation: expected {expected}, got {_shown(outline)}"
    return None


def _is_outline(outline: Any, size_hw: Sequence[int]) -> bool:
    if isinstance(outline, list):
        # pycocotools goes by the first: four numbers would be a box.
        lengths = [len(one) if isinstance(one, list) else 0 for one in outline]
        return lengths[0] > _BOX_NUMBERS and min(lengths) > 1 and all(map(_are_pixels, outline))
    if not isinstance(outline, dict) or outline.get("size") != size_hw:
        return False
    counts = outline.get("counts")
    if isinstance(counts, str):
        return _is_whole_rle(counts, size_hw)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return False
    return bool(sum(counts) == size_hw[0] * size_hw[1])


def _is_whole_rle(counts: str, size_hw: Sequence[int]) -> bool:
    """Whether compressed run lengths cover the image; pycocotools does not check."""
    try:
        area({"size": list(size_hw), "counts": counts})
    except ArtifactError:
        return False
    return True


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _are_pixels(values: Sequence[Any]) -> bool:
    return all(_is_number(value) and abs(value) <= _LARGEST_COORDINATE_PX for value in values)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_LETTERS else text[:_SHOWN_LETTERS] + "…"
