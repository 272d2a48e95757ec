"""JSON Lines: one self-contained line per image, in original-image pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtime.detections import Detections
from runtime.files import atomic_path


def record(image: str, detections: Detections) -> dict[str, Any]:
    """One image as a JSON object; `image` is its name as the caller knows it.

    Each detection has `label` (the checkpoint's class index), `name`, `score`, `box_xyxy` and,
    where the model has masks, `rle` (COCO's compressed run lengths), where it has keypoints,
    `keypoints`, [x, y, score] by name.
    """
    found: list[dict[str, Any]] = [
        {"label": label, "name": name, "score": score, "box_xyxy": box}
        for label, name, score, box in zip(
            detections.labels.tolist(),
            detections.names,
            detections.scores.tolist(),
            detections.boxes.tolist(),
            strict=True,
        )
    ]
    for row, rle in zip(found, detections.rle(), strict=False):
        row["rle"] = rle
    if detections.keypoints is not None:
        for row, points in zip(found, detections.keypoints.tolist(), strict=True):
            row["keypoints"] = dict(zip(detections.keypoint_names, points, strict=True))
    height, width = detections.image_hw
    return {
        "image": image,
        "height": height,
        "width": width,
        "exact": detections.exact,
        "detections": found,
    }


def write(path: Path, results: Iterable[tuple[str, Detections]]) -> None:
    """Write one line per image, given by name, in the order in which they come.

    Raises:
        ArtifactError: The file cannot be written; an existing one then stays as it was.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for image, detections in results:
            line = json.dumps(record(image, detections), allow_nan=False)
            file.write(line + "\n")
