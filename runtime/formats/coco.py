"""COCO results JSON, as `pycocotools.coco.COCO.loadRes` reads it.

One object per detection: `image_id`, `category_id` (the data set's), `bbox` as [x, y, width,
height] in original-image pixels, `score`, `segmentation` where the model has masks, `keypoints` as
[x, y, v, ...] where it has keypoints. COCO wants a visibility v there and reads none: it is 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
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


def rows(detections: Detections, image_id: int, classes: ClassSpec | None = None) -> list[CocoRow]:
    """The detections of one image in COCO's results format, in their order.

    Widths and heights are differences in float64, so that x + width gives back the box's float32.

    Args:
        detections: Of the image.
        image_id: The data set's id of it.
        classes: Gives the category ids by label, in the place of the detections' own.
    """
    if classes is not None:
        return rows_by_class(detections, image_id, classes)
    return list(_rows(jsonl.record("", detections, image_id)))


def rows_by_class(found: DetectionResult, image_id: int, classes: ClassSpec) -> list[CocoRow]:
    """As `rows`, of any result that has labels.

    Args:
        found: Of the image.
        image_id: The data set's id of it.
        classes: Gives the category ids by label.
    """
    made: list[CocoRow] = [
        {
            "image_id": image_id,
            "category_id": classes.dataset_id(label),
            "bbox": _xywh(box),
            "score": score,
        }
        for label, box, score in zip(
            found.labels.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True
        )
    ]
    for row, rle in zip(made, found.rle(), strict=False):
        row["segmentation"] = {"size": list(rle["size"]), "counts": rle["counts"]}
    if found.keypoints is not None:
        for row, points in zip(made, found.keypoints.tolist(), strict=True):
            row["keypoints"] = _xyv(points)
    return made


def write(
    path: Path, results: Iterable[tuple[int, Detections]], classes: ClassSpec | None = None
) -> None:
    """Write all images' detections, given with their image ids, as one JSON list.

    Raises:
        ArtifactError: The file cannot be written; an existing one then stays as it was.
    """
    _write(path, (row for image_id, found in results for row in rows(found, image_id, classes)))


def write_from_jsonl(path: Path, records: Path) -> None:
    """Write what `write` would, out of a JSON Lines file whose records have image ids.

    One photo at a time is in memory, and all image ids.

    Raises:
        ArtifactError: A file cannot be read or written, a record is damaged or has no image id, or
            two photos have the same; an existing file then stays as it was.
    """
    _write(path, _rows_of(records))


def _rows_of(records: Path) -> Iterator[CocoRow]:
    seen: dict[int, str] = {}
    for record in jsonl.read(records):
        image, image_id = record["image"], record.get("image_id")
        if not isinstance(image_id, int):
            raise ArtifactError(f"{records}: {image} has no image_id; predict again without resume")
        if image_id in seen:
            raise ArtifactError(
                f"{records}: {seen[image_id]} and then {image} have image_id {image_id}; predict "
                "the same photos in the same order, or again without resume"
            )
        seen[image_id] = image
        yield from _rows(record)


def _rows(record: dict[str, Any]) -> Iterator[CocoRow]:
    for found in record["detections"]:
        row: CocoRow = {
            "image_id": record["image_id"],
            "category_id": found["category_id"],
            "bbox": _xywh(found["box_xyxy"]),
            "score": found["score"],
        }
        if "rle" in found:
            row["segmentation"] = found["rle"]
        if "keypoints" in found:
            row["keypoints"] = _xyv(found["keypoints"].values())
        yield row


def _xywh(xyxy: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = xyxy
    return [x0, y0, x1 - x0, y1 - y0]


def _xyv(points: Iterable[Sequence[float]]) -> list[float]:
    return [number for x, y, _ in points for number in (x, y, _VISIBLE)]


def _write(path: Path, results: Iterable[CocoRow]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"
        for row in results:
            file.write(separator + json.dumps(row, allow_nan=False))
            separator = ",\n"
        file.write("\n]\n")
