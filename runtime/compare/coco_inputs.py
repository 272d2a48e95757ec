"""Annotations and results in the form that every COCO evaluator reads alike.

pycocotools ignores matches with annotation id 0, fails on an empty list of results, and takes the
size class of a row with a box and a mask from the box even for masks. Others take image ids through
a double, or refuse strings. So ids are renumbered from 1 in the order of the originals, which
decides ties, and only the fields that count are passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.errors import UsageError

IouType = Literal["bbox", "segm", "keypoints"]
# An integer or a string.
ImageId = Any
Json = Mapping[str, Any]
_FIELDS: Mapping[IouType, str] = {
    "bbox": "bbox",
    "segm": "segmentation",
    "keypoints": "keypoints",
}
COCO_MAX_DETECTIONS = 100
_KEYPOINT_DETECTIONS = 20
# pycocotools 2.0.11 puts the number of masks into a byte.
_MAX_AREAS = 255
# COCO's, of nose, eyes, ears, shoulders, elbows, wrists, hips, knees and ankles.
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CocoInputs:
    """One evaluation.

    Attributes:
        iou_type: what is compared.
        images: `id` from 1, and the size if it is known.
        categories: `id` from 1.
        truth: annotations of these images and categories, with the field of `iou_type`.
        rows: results of these images and categories, as annotations with scores.
        limits: detections per image and category, ascending.
        sigmas: of each keypoint; empty for boxes and masks.
        source_categories: the caller's categories, in the order of `categories`.
    """

    iou_type: IouType
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    truth: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    limits: list[int]
    sigmas: tuple[float, ...]
    source_categories: list[Json]


def coco_inputs(
    ground_truth: Json,
    results: Iterable[Json],
    iou_type: IouType,
    image_ids: Sequence[ImageId],
    max_detections: int | None = None,
    sigmas: Sequence[float] = (),
) -> CocoInputs:
    """See `runtime.compare.coco_ap.evaluate`."""
    sigmas = (sigmas or COCO_SIGMAS) if iou_type == "keypoints" else ()
    images = _sorted(_named_images(ground_truth, image_ids))
    categories = _sorted(ground_truth["categories"])
    ids = _Ids(images, categories)
    rows = list(ids.renumbered(results))
    key = _FIELDS[iou_type]
    for number, (row, _) in enumerate(rows, start=1):
        if key not in row:
            raise UsageError(
                f"evaluate: expected '{key}' in result row {number}, got {sorted(row)}; predict "
                "with a model that has it, or evaluate the other IoU type"
            )
    areas = areas_px([row[key] for row, _ in rows], iou_type)
    truth = list(ids.renumbered(ground_truth["annotations"]))
    inputs = CocoInputs(
        iou_type,
        [{**_size(image), "id": n} for n, image in enumerate(images, start=1)],
        [{"id": n, "name": str(n)} for n, _ in enumerate(categories, start=1)],
        [{**_truth(one, iou_type), **numbers} for one, numbers in truth],
        [
            {key: row[key], "score": row["score"], "area": area, "iscrowd": 0, **numbers}
            for (row, numbers), area in zip(rows, areas, strict=True)
        ],
        _limits(iou_type, max_detections, [numbers["image_id"] for _, numbers in rows]),
        tuple(sigmas),
        categories,
    )
    _require_sigmas(inputs)
    return inputs


class _Ids:
    """Numbers from 1 for the ids of these images and categories."""

    def __init__(self, images: Sequence[Json], categories: Sequence[Json]) -> None:
        self._images = {image["id"]: n for n, image in enumerate(images, start=1)}
        self._categories = {one["id"]: n for n, one in enumerate(categories, start=1)}

    def renumbered(self, entries: Iterable[Json]) -> Iterator[tuple[Json, dict[str, int]]]:
        """Each entry of these images and categories, with its numbers."""
        count = 0
        for entry in entries:
            image = self._images.get(entry["image_id"])
            category = self._categories.get(entry["category_id"])
            if image is not None and category is not None:
                count += 1
                yield entry, {"id": count, "image_id": image, "category_id": category}


def _named_images(ground_truth: Json, image_ids: Sequence[ImageId]) -> list[Json]:
    known = {image["id"]: image for image in ground_truth["images"]}
    ids = set(image_ids)
    missing = [image_id for image_id in ids if image_id not in known]
    if missing or not ids:
        raise UsageError(
            f"evaluate: expected one or more ids of the {len(known)} annotated images, got "
            f"{len(ids)}, not annotated: {missing[:3]}; evaluate the images of this annotation "
            "file"
        )
    return [known[image_id] for image_id in ids]


def _sorted(entries: Iterable[Json]) -> list[Json]:
    """By id, each once: numbers before strings."""
    by_id = {entry["id"]: entry for entry in entries}
    return [by_id[one] for one in sorted(by_id, key=lambda one: (isinstance(one, str), one))]


def _size(image: Json) -> dict[str, Any]:
    return {side: image[side] for side in ("height", "width") if side in image}


def _truth(annotation: Json, iou_type: IouType) -> dict[str, Any]:
    # OKS takes the box of an object without labeled keypoints.
    more = ("bbox", "num_keypoints") if iou_type == "keypoints" else ()
    fields = {name: annotation[name] for name in (_FIELDS[iou_type], "area", *more)}
    return {**fields, "iscrowd": int(bool(annotation.get("iscrowd", 0)))}


def default_sigmas(count: int) -> tuple[float, ...]:
    """COCO's sigmas for its 17 keypoints, else their mean for each."""
    if count == len(COCO_SIGMAS):
        return COCO_SIGMAS
    return (sum(COCO_SIGMAS) / len(COCO_SIGMAS),) * count


def areas_px(shapes: Sequence[Any], iou_type: IouType) -> list[float]:
    """Areas of boxes (xywh), masks (compressed RLE) or keypoints, for COCO's size classes."""
    if iou_type == "bbox":
        return [float(width * height) for _, _, width, height in shapes]
    if iou_type == "segm":
        from pycocotools import mask

        parts = (
            mask.area(list(shapes[start : start + _MAX_AREAS]))
            for start in range(0, len(shapes), _MAX_AREAS)
        )
        return [float(area) for part in parts for area in part]
    # As COCO's own reader of results: the extent of the keypoints.
    return [
        float((max(points[0::3]) - min(points[0::3])) * (max(points[1::3]) - min(points[1::3])))
        for points in shapes
    ]


def _limits(iou_type: IouType, most: int | None, image_of_row: Sequence[int]) -> list[int]:
    if iou_type == "keypoints":
        return [most or _KEYPOINT_DETECTIONS]
    most = most or max((COCO_MAX_DETECTIONS, *Counter(image_of_row).values()))
    return sorted({limit for limit in (1, 10, most) if limit <= most})


def _require_sigmas(inputs: CocoInputs) -> None:
    """One falloff for every keypoint of truth and results; OKS of others would be nonsense."""
    if inputs.iou_type != "keypoints":
        return
    for name, entries in (("annotations", inputs.truth), ("results", inputs.rows)):
        for entry in entries:
            if len(entry["keypoints"]) != 3 * len(inputs.sigmas):
                raise UsageError(
                    f"evaluate: expected {len(inputs.sigmas)} keypoints as there are sigmas, got "
                    f"{len(entry['keypoints']) / 3:g} in the {name}; use annotations of this "
                    "model's keypoints, and one of --sigmas for each"
                )
