"""COCO results JSON, as `pycocotools.coco.COCO.loadRes` reads it.

One object per detection: `image_id`, `category_id` (the data set's), `bbox` as [x, y, width,
height] in original-image pixels, `score`, `segmentation` where the model has masks, `keypoints` as
[x, y, v, ...] where it has keypoints. COCO wants a visibility v there and reads none: it is 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NotRequired, TypedDict

from model.spec import ClassSpec
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.rle import Rle

_VISIBLE = 2


class CocoRow(TypedDict):
    """One detection in COCO's results format."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: NotRequired[Rle]
    keypoints: NotRequired[list[float]]


def rows(detections: Detections, image_id: int, classes: ClassSpec) -> list[CocoRow]:
    """The detections of one image in COCO's results format, in their order.

    Widths and heights are differences in float64, so that x + width gives back the box's float32.
    """
    found: list[CocoRow] = [
        {
            "image_id": image_id,
            "category_id": classes.dataset_id(label),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for label, score, (x0, y0, x1, y1) in zip(
            detections.labels.tolist(),
            detections.scores.tolist(),
            detections.boxes.tolist(),
            strict=True,
        )
    ]
    for row, rle in zip(found, detections.rle(), strict=False):
        row["segmentation"] = rle
    if detections.keypoints is not None:
        for row, points in zip(found, detections.keypoints.tolist(), strict=True):
            row["keypoints"] = [number for x, y, _ in points for number in (x, y, _VISIBLE)]
    return found


def write(path: Path, results: Iterable[tuple[int, Detections]], classes: ClassSpec) -> None:
    """Write all images' detections, given with their image ids, as one JSON list.

    Raises:
        ArtifactError: The file cannot be written; an existing one then stays as it was.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"
        for image_id, detections in results:
            for row in rows(detections, image_id, classes):
                file.write(separator + json.dumps(row, allow_nan=False))
                separator = ",\n"
        file.write("\n]\n")
