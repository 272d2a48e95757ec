"""Cutouts: each detection as an image of its own, with its mask as alpha channel."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from PIL import Image

from model.arrays import UInt8
from model.errors import ArtifactError
from runtime.boxes import clipped
from runtime.detections import Detections
from runtime.drawing.source_image import source_pixels
from runtime.files import atomic_path
from runtime.formats.names import file_stem
from runtime.masks.paste import MaskCrop

Window = tuple[int, int, int, int]
_CUTOUT_NAME = re.compile(r"\d{3,}-.*\.png")


def cutouts(image: Image.Image | UInt8, detections: Detections) -> list[Image.Image]:
    """Each detection cut out of the image.

    The window is the box in whole pixels, clipped to the image and grown to hold every pixel of the
    mask, which may extend beyond the box by part of a mask cell.

    Args:
        image: The original image, see `runtime.drawing.source_image`.
        detections: In the image.

    Returns:
        An image per row: RGBA with the mask as alpha; RGB for a box-only model. Its size is 0 if
        neither box nor mask has a pixel in the image.

    Raises:
        ImageError: The size of the image is not that of the detections.
    """
    pixels = source_pixels("cutouts", image, detections)
    boxes = clipped(detections.boxes, detections.image_hw).tolist()
    crops: list[MaskCrop] | list[None] = detections.crops() or [None] * len(boxes)
    return [_cutout(pixels, box, crop) for box, crop in zip(boxes, crops, strict=True)]


def write(folder: Path, image: Image.Image | UInt8, detections: Detections) -> None:
    """Write `folder/<row>-<class>.png` for each row that has a pixel.

    Other cutouts in the folder, of an earlier run, are removed.

    Raises:
        ArtifactError: A file cannot be written.
        ImageError: As `cutouts`.
    """
    written = set()
    try:
        for row, picture in enumerate(cutouts(image, detections)):
            if not (picture.width and picture.height):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{row:03d}-{file_stem(detections.names[row])}.png"
            with atomic_path(path) as temporary:
                picture.save(temporary)
            written.add(path.name)
        for path in folder.iterdir() if folder.is_dir() else ():
            if _CUTOUT_NAME.fullmatch(path.name) and path.name not in written:
                path.unlink()
    except OSError as error:
        raise ArtifactError(
            f"cannot write {folder}: {error.strerror or error}; check permissions and disk"
        ) from error


def _cutout(pixels: UInt8, box_xyxy: list[float], crop: MaskCrop | None) -> Image.Image:
    x0, y0, x1, y1 = box_xyxy
    window: Window | None = None
    if x0 < x1 and y0 < y1:
        window = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    if crop is None:
        left, top, right, bottom = window or (0, 0, 0, 0)
        return _picture(pixels[top:bottom, left:right])
    left, top, right, bottom = _with_mask(window, crop)
    alpha = np.zeros((bottom - top, right - left, 1), np.uint8)
    rows = slice(max(crop.y0_px, top), min(crop.y0_px + crop.rows.shape[0], bottom))
    columns = slice(max(crop.x0_px, left), min(crop.x0_px + crop.rows.shape[1], right))
    if rows.start < rows.stop and columns.start < columns.stop:
        mask = crop.rows[_shift(rows, crop.y0_px), _shift(columns, crop.x0_px)]
        alpha[_shift(rows, top), _shift(columns, left), 0] = mask * np.uint8(255)
    return _picture(np.concatenate((pixels[top:bottom, left:right], alpha), axis=2))


def _with_mask(window: Window | None, crop: MaskCrop) -> Window:
    """The window, grown to hold every pixel of the mask."""
    columns, rows = np.flatnonzero(crop.rows.any(axis=0)), np.flatnonzero(crop.rows.any(axis=1))
    if not columns.size:
        return window or (0, 0, 0, 0)
    x0, x1 = crop.x0_px + int(columns[0]), crop.x0_px + int(columns[-1]) + 1
    y0, y1 = crop.y0_px + int(rows[0]), crop.y0_px + int(rows[-1]) + 1
    left, top, right, bottom = window or (x0, y0, x1, y1)
    return min(left, x0), min(top, y0), max(right, x1), max(bottom, y1)


def _shift(span: slice, origin: int) -> slice:
    return slice(span.start - origin, span.stop - origin)


def _picture(pixels: UInt8) -> Image.Image:
    height, width, channels = pixels.shape
    if not (height and width):
        return Image.new("RGBA" if channels == 4 else "RGB", (0, 0))
    return Image.fromarray(np.ascontiguousarray(pixels))
