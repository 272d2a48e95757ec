"""labelme annotation files, to inspect and correct detections in an annotation tool.

A detection is a polygon for each part of its mask, or one mask shape, or a rectangle for a box-only
model; and a point for each keypoint. Its shapes share the row as `group_id`; the score is in
`description`. A detection without a pixel in the image has no shape.

labelme truncates the vertices of a polygon to pixels and paints the outline and what it encloses.
So polygons are `runtime.masks.pixel_rings`, half a pixel inside the mask's edge, and a hole is
joined to its exterior over pixels of the mask. labelme's own reader (`shapes_to_label`) gives the
mask's pixels for the polygons of one detection together, and for a mask shape
(`bench/label_readers.py`).

Source: labelme 5 to 7, `labelme/label_file.py`, `labelme/utils/shape.py`.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import ExifTags, Image

from model.arrays import Int64
from model.errors import UsageError
from runtime.boxes import clipped
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.masks.paste import MaskCrop
from runtime.masks.pixel_rings import IN_PIXEL_PX, part_rings
from runtime.sources.photos import upright_size

MaskShape = Literal["polygon", "mask"]
MASK_SHAPES: tuple[MaskShape, ...] = get_args(MaskShape)

# The file format has not changed since; labelme warns about other major versions.
_VERSION = "5.5.0"
# Pillow's modes of the photos that labelme opens, whatever the file format.
_OPENED_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


def document(
    detections: Detections, image_path: str, mask_shape: MaskShape = "polygon"
) -> dict[str, Any]:
    """The content of one photo's file.

    Args:
        detections: In the photo.
        image_path: Of the photo, relative to the folder of the file.
        mask_shape: The type of shape for masks.

    Raises:
        UsageError: There is no such type.
    """
    if mask_shape not in MASK_SHAPES:
        raise UsageError(f"labelme: expected a shape of {', '.join(MASK_SHAPES)}, got {mask_shape}")
    height, width = detections.image_hw
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": list(_shapes(detections, mask_shape)),
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def write(
    path: Path, detections: Detections, image_path: str, mask_shape: MaskShape = "polygon"
) -> None:
    """Write one photo's file; see `document`.

    Raises:
        ArtifactError: The file cannot be written.
    """
    content = document(detections, image_path, mask_shape)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")


def is_opened(photo: str | os.PathLike[str]) -> bool:
    """Whether labelme opens an intact photo, with the pixels that `sources.photos.decode` returns.

    Not with 16 bits per pixel or CMYK, not with damaged EXIF, and not if the photo is turned by
    something else than EXIF (XMP, a tag of a TIFF file).
    """
    with Image.open(photo) as image:
        read_exif = getattr(image, "_getexif", None)
        try:
            # As labelme does. Without EXIF, Pillow would decode a whole PNG file to look for it.
            exif = read_exif() if read_exif and "exif" in image.info else None
        except Exception:
            return False
        is_turned = (exif or {}).get(ExifTags.Base.Orientation) in range(2, 9)
        return image.mode in _OPENED_MODES and is_turned == upright_size(Path(photo)).is_turned


def _shapes(detections: Detections, mask_shape: MaskShape) -> Iterator[dict[str, Any]]:
    masks = list(_mask_shapes(detections, mask_shape))
    for row, (name, score) in enumerate(zip(detections.names, detections.scores, strict=True)):
        for shape in masks[row]:
            yield _shape(name, row, f"score {score:.4f}", **shape)
        if detections.keypoints is not None:
            points = detections.keypoints[row].tolist()
            for keypoint, (x, y, certainty) in zip(detections.keypoint_names, points, strict=True):
                yield _shape(keypoint, row, f"score {certainty:.4f}", "point", [[x, y]])


def _mask_shapes(detections: Detections, mask_shape: MaskShape) -> Iterator[list[dict[str, Any]]]:
    """Type, points and mask of the shapes of each detection."""
    if detections.mask_probs is None:
        for x0, y0, x1, y1 in clipped(detections.boxes, detections.image_hw).tolist():
            rectangle = {"shape_type": "rectangle", "points": [[x0, y0], [x1, y1]]}
            yield [rectangle] if x0 < x1 and y0 < y1 else []
    elif mask_shape == "polygon":
        for parts in part_rings(detections.crops()):
            yield [_polygon(ring) for ring in parts]
    else:
        for crop in detections.crops():
            yield [_mask(crop)] if crop.columns.any() else []


def _polygon(ring: Int64) -> dict[str, Any]:
    return {"shape_type": "polygon", "points": (ring + IN_PIXEL_PX).tolist()}


def _mask(crop: MaskCrop) -> dict[str, Any]:
    """The mask in its tight box: the first and last pixel, and a PNG of zeros and ones."""
    x, y = (np.flatnonzero(crop.rows.any(axis=axis)) for axis in (0, 1))
    tight = crop.rows[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    file = io.BytesIO()
    Image.fromarray(tight.astype(np.uint8)).save(file, "PNG")
    corners = [[crop.x0_px + x[end], crop.y0_px + y[end]] for end in (0, -1)]
    points = np.array(corners, np.float64).tolist()
    return {
        "shape_type": "mask",
        "points": points,
        "mask": base64.b64encode(file.getvalue()).decode("ascii"),
    }


def _shape(
    label: str,
    row: int,
    description: str,
    shape_type: str,
    points: Sequence[Sequence[float]],
    mask: str | None = None,
) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": row,
        "description": description,
        "shape_type": shape_type,
        "flags": {},
        "mask": mask,
    }
