"""Ground truth for a model, from the photos of a COCO file: a clean document.

Every field has one form in it, and category ids are the model's. All checks that need a model are
here, so that no photo runs before them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import UsageError
from model.spec import ModelSpec
from runtime.annotations.categories import match_categories
from runtime.annotations.coco_file import Annotation
from runtime.annotations.keypoint_order import in_model_order
from runtime.annotations.labeled_photos import LabeledPhotos
from runtime.annotations.objects import CleanObject, clean_object
from runtime.annotations.photo_sizes import require_sizes, turned_notice
from runtime.annotations.plausibility import repeated, unlikely
from runtime.annotations.segmentations import UnusableError, has_mask
from runtime.annotations.values import shown
from runtime.compare.coco_evaluators import require_pycocotools
from runtime.compare.coco_inputs import IouType


@dataclass(frozen=True, slots=True)
class Labels:
    """Ground truth for one model.

    Attributes:
        path: of the COCO file.
        document: clean COCO instances of the readable photos. Annotation ids run from 1; category
            ids are the model's, and other numbers for categories that the model lacks;
            annotations have `iscrowd`, `area` and `bbox`, and as `iou_types` has them
            `segmentation` (compressed run lengths of the photo's size), and `keypoints` with
            `num_keypoints`.
        photos: files by image id, unreadable ones too.
        iou_types: what can be scored: "bbox", "segm", "keypoints".
        notices: a line for each oddity of the file, for people.
    """

    path: Path
    document: Mapping[str, Any]
    photos: Mapping[int, Path]
    iou_types: tuple[IouType, ...]
    notices: tuple[str, ...]


def labels_for(found: LabeledPhotos, spec: ModelSpec) -> Labels:
    """Clean and check the objects on the readable photos, for a model.

    Raises:
        UsageError: photos of another size than in the file, no objects, no category in common, or
            objects that cannot be used.
        MissingDependencyError: pycocotools is not installed.
    """
    require_pycocotools()
    path, images, sizes = found.file.path, found.images, found.sizes
    if not sizes:
        raise UsageError(
            f"{path}: none of its {len(found.photos)} photos can be opened; use others"
        )
    sizes_hw = {number: size.hw for number, size in sizes.items()}
    require_sizes(path, images, sizes)
    numbers = {images[number].id: number for number in sizes}
    annotations = [one for one in found.file.annotations if one.image in numbers]
    if not annotations:
        raise UsageError(
            f"{path}: nothing is labeled on any of the {len(found.photos)} photos; expected the "
            "annotations of these photos"
        )
    counts = Counter(one.category for one in annotations)
    match = match_categories(path, found.file.categories, counts, spec)
    hws = [sizes_hw[numbers[one.image]] for one in annotations]
    bare = [
        _where(number, one)
        for number, one in enumerate(annotations, start=1)
        if not has_mask(one.fields.get("segmentation"))
    ]
    objects = _objects(path, annotations, hws, spec, needs_masks=not bare)
    categories = [match.ids[one.category] for one in annotations]
    _require_scored(path, objects, categories, match.common)
    iou_types, not_scored = _iou_types(objects, bare, spec)
    rows = [clean.fields for clean in objects]
    if "keypoints" in iou_types and spec.keypoint is not None:
        unlabeled = {"keypoints": [0.0] * 3 * len(spec.keypoint.names), "num_keypoints": 0}
        rows = [row if row.get("keypoints") else {**row, **unlabeled} for row in rows]
        names = {one.id: one.keypoints for one in found.file.categories}
        rows, lines = in_model_order(
            rows, [names[one.category] for one in annotations], spec.keypoint.names
        )
        not_scored += lines
    document = {
        "images": [
            {"id": n, "file_name": images[n].file_name, "height": hw[0], "width": hw[1]}
            for n, hw in sizes_hw.items()
        ],
        "categories": [{"id": number, "name": name} for number, name in match.names.items()],
        "annotations": [
            {"id": n, "image_id": numbers[one.image], "category_id": category, **row}
            for n, (one, category, row) in enumerate(
                zip(annotations, categories, rows, strict=True), start=1
            )
        ],
    }
    notices = [*found.notices, *turned_notice(sizes.values()), *match.notices]
    notices += [*not_scored, *_completed(objects), *repeated(document["annotations"])]
    notices += unlikely(objects, hws)
    return Labels(path, document, found.photos, iou_types, tuple(notices))


def _objects(
    path: Path,
    annotations: Sequence[Annotation],
    sizes_hw: Sequence[tuple[int, int]],
    spec: ModelSpec,
    needs_masks: bool,
) -> list[CleanObject]:
    """Raises a UsageError with the first object that cannot be used, and how many like it."""
    # Masks of some objects only cannot be scored.
    needs_masks = needs_masks and spec.mask is not None
    objects, problems = [], []
    for number, (one, hw) in enumerate(zip(annotations, sizes_hw, strict=True), start=1):
        try:
            objects.append(clean_object(one.fields, hw, needs_masks, spec.keypoint is not None))
        except UnusableError as error:
            problems.append((error, _where(number, one)))
    if problems:
        first, where = problems[0]
        alike = sum(problem.field == first.field for problem, _ in problems)
        raise UsageError(
            f"{path}: {where}: {first} ({alike} of {len(annotations)} objects); correct the file"
        )
    return objects


def _where(number: int, one: Annotation) -> str:
    return f"object {shown(one.fields.get('id', f'number {number}'))} on image {shown(one.image)}"


def _require_scored(
    path: Path, objects: Sequence[CleanObject], categories: Sequence[int], common: frozenset[int]
) -> None:
    """AP is undefined without an object, and crowds are none."""
    single = [c for one, c in zip(objects, categories, strict=True) if not one.fields["iscrowd"]]
    if not single:
        raise UsageError(
            f"{path}: all {len(objects)} objects on these photos are crowds, which AP leaves out; "
            "expected single objects"
        )
    if not common.intersection(single):
        raise UsageError(
            f"{path}: none of the {len(single)} objects on these photos is of a category that the "
            "model can predict; expected its categories"
        )


def _iou_types(
    objects: Sequence[CleanObject], bare: Sequence[str], spec: ModelSpec
) -> tuple[tuple[IouType, ...], list[str]]:
    """What can be scored, and a line for what the model has and the file lacks."""
    iou_types: list[IouType] = ["bbox"]
    missing = []
    if spec.mask is not None:
        if len(bare) == len(objects):
            missing.append(f"no mask AP: none of the {len(objects)} objects has a segmentation")
        elif bare:
            missing.append(
                f"no mask AP: {len(bare)} of {len(objects)} objects have no segmentation (first: "
                f"{bare[0]}); add it, or remove these objects"
            )
        else:
            iou_types.append("segm")
    if spec.keypoint is not None:
        names = spec.keypoint.names
        lengths = [len(one.fields["keypoints"]) for one in objects if one.fields.get("keypoints")]
        others = sum(length != 3 * len(names) for length in lengths)
        if others:
            missing.append(
                f"no keypoint AP: {others} of {len(objects)} objects have another number of "
                f"keypoints than the model's {len(names)}"
            )
        elif not any(one.fields.get("num_keypoints") for one in objects):
            missing.append(f"no keypoint AP: none of the {len(objects)} objects has keypoints")
        else:
            iou_types.append("keypoints")
    return tuple(iou_types), missing


def _completed(objects: Sequence[CleanObject]) -> list[str]:
    """Lines about what was derived, and about polygons that were read in another form."""
    lines = []
    derived = Counter(name for one in objects for name in one.derived)
    if derived:
        counts = ", ".join(f"{name} ({count})" for name, count in derived.items())
        lines.append(f"derived for those of the {len(objects)} objects that lack it: {counts}")
    nested = sum(one.mask is not None and one.mask.is_nested_otherwise for one in objects)
    if nested:
        lines.append(
            f"{nested} of {len(objects)} segmentations are not lists of [x, y, x, y, …]; read as "
            "the polygons of their points"
        )
    return lines
