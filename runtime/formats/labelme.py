"""labelme's annotation files, to look at detections in an annotation tool and mend them.

A detection is a polygon for each part of its mask, or a rectangle for a box-only model, and a point
for each keypoint. `group_id` is the detection's row, so that what belongs together shows. The score
is in `description`.

What the format cannot say: a polygon has no holes, so a hole is joined to its exterior by a cut
without width (`runtime.masks.join_rings`): filled, it has the same pixels. Outlines are simplified
so far that they still hold the same pixels. A detection without a pixel in the image
has no polygon.

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
from runtime.masks.join_rings import one_ring
from runtime.masks.polygons import SAME_PIXELS_PX

# Of the files' form, which has not changed since; labelme warns about a major version of its own.
_VERSION = "5.5.0"


def document(detections: Detections, image_path: str) -> dict[str, Any]:
    """The content of one photo's file.

    Args:
        detections: Of the photo.
        image_path: Where labelme finds the photo, from the folder of the file.
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
        described = f"score {detections.scores[row]:.4f}"
        if detections.mask_probs is not None:
            for part in masks[row]:
                yield _shape("polygon", name, one_ring([part]).tolist(), row, described)
        else:
            x0, y0, x1, y1 = boxes[row]
            if x0 < x1 and y0 < y1:
                yield _shape("rectangle", name, [[x0, y0], [x1, y1]], row, described)
        if detections.keypoints is not None:
            points = detections.keypoints[row].tolist()
            for keypoint, (x, y, score) in zip(detections.keypoint_names, points, strict=True):
                yield _shape("point", keypoint, [[x, y]], row, f"score {score:.4f}")


def _shape(
    kind: str, label: str, points: list[list[float]], row: int, description: str
) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": row,
        "description": description,
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }
