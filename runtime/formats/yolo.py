"""YOLO labels: `labels/<stem>.txt`, a line per detection, with the class names in two files.

A line is `class x y x y ...`, x and y as fractions of the image's width and height, or for a
box-only model `class center_x center_y width height`. `class` counts the classes without the
background from 0, in the order of the model's names: `classes.txt` has one per line, `data.yaml`
has them in the form that a training run reads.

Limits of the format: a line has one ring, so zero-width cuts join parts and holes
(`runtime.masks.join_rings`), which keeps the pixels; there is no score; a detection without a pixel
in the image has no line. Outlines are simplified as far as the pixels stay the same; a reader that
rounds vertices to whole pixels, as Ultralytics' training does, moves an edge by up to half a pixel.

Source: Ultralytics' documentation, "Instance segmentation datasets overview".
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from model.arrays import Float64
from model.spec import ModelSpec
from runtime.boxes import clipped
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.formats import layout
from runtime.masks.join_rings import to_single_ring
from runtime.masks.polygons import SAME_PIXELS_PX

_DECIMALS = 7


def lines(detections: Detections) -> list[str]:
    """A line per detection that has a pixel in the image."""
    height, width = detections.image_hw
    classes = (detections.labels - detections.first_class).tolist()
    if detections.mask_probs is None:
        x0, y0, x1, y1 = clipped(detections.boxes, detections.image_hw).astype(np.float64).T
        rows = np.stack((x0 + x1, y0 + y1, 2 * (x1 - x0), 2 * (y1 - y0)), axis=1) / 2
        rows /= (width, height, width, height)
        is_visible = (rows[:, 2:] > 0).all(axis=1)
        return [_line(classes[row], rows[row]) for row in np.flatnonzero(is_visible)]
    return [
        _line(label, (to_single_ring(parts) / (width, height)).ravel())
        for label, parts in zip(classes, detections.polygons(SAME_PIXELS_PX), strict=True)
        if parts
    ]


def write(path: Path, detections: Detections) -> None:
    """Write one photo's label file; it is empty without detections.

    Raises:
        ArtifactError: The file cannot be written.
    """
    _write_text(path, "".join(f"{line}\n" for line in lines(detections)))


def write_names(folder: Path, spec: ModelSpec) -> None:
    """Write the class names to `classes.txt` and `data.yaml`.

    Raises:
        ArtifactError: A file cannot be written.
    """
    names = [" ".join(name.split()) for name in class_names(spec)]
    _write_text(folder / layout.CLASSES, "".join(f"{name}\n" for name in names))
    # JSON is valid YAML for any name.
    entries = [f"  {index}: {json.dumps(name)}\n" for index, name in enumerate(names)]
    _write_text(folder / layout.DATA, "".join((f"nc: {len(names)}\n", "names:\n", *entries)))


def class_names(spec: ModelSpec) -> tuple[str, ...]:
    """Class names by their number in a label file."""
    return spec.classes.names[int(spec.box.background == "first") :]


def _line(label: int, numbers: Float64) -> str:
    texts = (f"{number:.{_DECIMALS}f}".rstrip("0").rstrip(".") for number in numbers)
    return " ".join((str(label), *texts))


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        # A class name may hold a lone surrogate, which has no encoding.
        temporary.write_text(text, "utf-8", "backslashreplace", newline="\n")
