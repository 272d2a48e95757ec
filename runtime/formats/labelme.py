"""labelme annotation files, to inspect and correct detections in an annotation tool.

A detection is a polygon for each part of its mask, or a rectangle for a box-only model, and a point
for each keypoint. Its shapes share the row as `group_id`; the score is in `description`.

Limits of the format: a polygon has no holes, so a zero-width cut joins each hole to its exterior
(`runtime.masks.join_rings`), which keeps the pixels. Outlines are simplified as far as the pixels
stay the same. A detection without a pixel in the image has no polygon.

Source: labelme 5, `labelme/label_file.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.boxes import clipped
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.masks.join_rings import to_single_ring
from runtime.masks.polygons import SAME_PIXELS_PX

# The file format has not changed since; labelme warns about other major versions.
_VERSION = "5.5.0"


def document(detections: Detections, image_path: str) -> dict[str, Any]:
    """The content of one photo's file.

    Args:
        detections: In the photo.
        image_path: Of the photo, relative to the folder of the file.
    """
    height, width = detections.image_hw
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": list(_shapes(detections)),
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def write(path: Path, detections: Detections, image_path: str) -> None:
    """Write one photo's file.

    Raises:
        ArtifactError: The file cannot be written.
    """
    text = json.dumps(document(detections, image_path), indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def _shapes(detections: Detections) -> Iterator[dict[str, Any]]:
    boxes = clipped(detections.boxes, detections.image_hw).tolist()
    masks = detections.polygons(SAME_PIXELS_PX)
    for row, name in enumerate(detections.names):
        description = f"score {detections.scores[row]:.4f}"
        if detections.mask_probs is not None:
            for part in masks[row]:
                yield _shape("polygon", name, to_single_ring([part]).tolist(), row, description)
        else:
            x0, y0, x1, y1 = boxes[row]
            if x0 < x1 and y0 < y1:
                yield _shape("rectangle", name, [[x0, y0], [x1, y1]], row, description)
        if detections.keypoints is not None:
            points = detections.keypoints[row].tolist()
            for keypoint, (x, y, score) in zip(detections.keypoint_names, points, strict=True):
                yield _shape("point", keypoint, [[x, y]], row, f"score {score:.4f}")


def _shape(
    shape_type: str, label: str, points: list[list[float]], row: int, description: str
) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": row,
        "description": description,
        "shape_type": shape_type,
        "flags": {},
        "mask": None,
    }
