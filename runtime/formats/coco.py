"""COCO results JSON, as `pycocotools.coco.COCO.loadRes` reads it.

One object per detection: `image_id`, `category_id` (the data set's), `bbox` as [x, y, width,
height] in original-image pixels, `score`, `segmentation` if the model has masks, and `keypoints` as
[x, y, v, ...] if it has keypoints. COCO requires the visibility v but does not read it: it is 2.
Widths and heights are float64 differences, so that x + width gives back the box's float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from model.errors import ArtifactError
from model.spec import ClassSpec
from runtime.compare.result_protocol import DetectionResult
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.formats import jsonl
from runtime.masks.rle import Rle

_VISIBLE = 2


class CocoRow(TypedDict):
    """One detection in COCO's results format."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: NotRequired[Rle]
    keypoints: NotRequired[list[float]]


def rows(detections: Detections, image_id: int) -> list[CocoRow]:
    """The detections of one image in COCO's results format, in order."""
    return _rows(detections, image_id, detections.dataset_ids.tolist())


def rows_by_class(result: DetectionResult, image_id: int, classes: ClassSpec) -> list[CocoRow]:
    """As `rows` for any result; `classes` maps its labels to category ids."""
    category_ids = [classes.dataset_id(label) for label in result.labels.tolist()]
    return _rows(result, image_id, category_ids)


def rows_of_record(record: Mapping[str, Any], image_id: int) -> Iterator[CocoRow]:
    """The detections of a record, see `runtime.formats.jsonl`, as `rows` gives them."""
    for detection in record["detections"]:
        keypoints = detection.get("keypoints")
        yield _row(
            image_id,
            detection["category_id"],
            detection["box_xyxy"],
            detection["score"],
            detection.get("rle"),
            None if keypoints is None else keypoints.values(),
        )


def write_from_jsonl(path: Path, records: Path) -> None:
    """Write a JSON Lines file whose records have image ids as one JSON list.

    Memory holds one photo at a time, and all image ids.

    Raises:
        ArtifactError: A file cannot be read or written, a record is damaged or has no image id, or
            two photos have the same id. An existing file then stays unchanged.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"
        for row in _record_rows(records):
            file.write(separator + json.dumps(row, allow_nan=False))
            separator = ",\n"
        file.write("\n]\n")


def _rows(result: DetectionResult, image_id: int, category_ids: Sequence[int]) -> list[CocoRow]:
    nothing: list[Any] = [None] * len(result)
    keypoints = nothing if result.keypoints is None else result.keypoints.tolist()
    boxes, scores = result.boxes.tolist(), result.scores.tolist()
    columns = zip(category_ids, boxes, scores, result.rle() or nothing, keypoints, strict=True)
    return [_row(image_id, *column) for column in columns]


def _record_rows(records: Path) -> Iterator[CocoRow]:
    images: dict[int, str] = {}
    for record in jsonl.read(records):
        image, image_id = record["image"], record.get("image_id")
        if not isinstance(image_id, int):
            raise ArtifactError(f"{records}: {image} has no image_id; predict again without resume")
        if image_id in images:
            raise ArtifactError(
                f"{records}: {images[image_id]} and then {image} have image_id {image_id}; predict "
                "the same photos in the same order, or again without resume"
            )
        images[image_id] = image
        yield from rows_of_record(record, image_id)


def _row(
    image_id: int,
    category_id: int,
    box_xyxy: Sequence[float],
    score: float,
    rle: Mapping[str, Any] | None,
    keypoints: Iterable[Sequence[float]] | None,
) -> CocoRow:
    x0, y0, x1, y1 = box_xyxy
    row: CocoRow = {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "score": score,
    }
    if rle is not None:
        row["segmentation"] = {"size": list(rle["size"]), "counts": rle["counts"]}
    if keypoints is not None:
        row["keypoints"] = [number for x, y, _ in keypoints for number in (x, y, _VISIBLE)]
    return row
