"""YOLO labels: `labels/<stem>.txt`, a line per detection, with the class names in two files.

A line is `class x y x y ...`, x and y as fractions of the image's width and height, or for a
box-only model `class center_x center_y width height`. `class` counts the classes without the
background from 0, in the order of the model's names: `classes.txt` has one per line, `data.yaml`
has them in the form that a training run reads.

Ultralytics and supervision multiply a vertex by the image's size, Ultralytics truncates it to a
pixel and supervision rounds it, and both paint the outline and what it encloses. So the vertices
are `runtime.masks.pixel_rings`, a quarter of a pixel past the pixel's integer coordinates, and at
the image's own size both readers give:

* the mask's pixels, if it is in one piece, with or without holes; pixels that touch at a corner are
  one piece;
* a mask in several pieces with bridges, a pixel wide and as short as possible, because a line has
  one ring.

Ultralytics' training first adds points between the vertices, up to 1000 or one more than the
longest outline of the photo has. On a diagonal step, rounding moves such a point to a pixel beside
the mask. So an outline with a diagonal step repeats its last vertex, up to a length to which
nothing is added. Where this length exceeds 1000, an outline of several pieces does not, and such
pixels may remain beside its bridges.

`bench/label_readers.py` measures this with the readers themselves. A reader that takes the outline
as exact geometry gets half a pixel less on each side. There is no score, and a detection without a
pixel in the image has no line.

Source: Ultralytics' documentation, "Instance segmentation datasets overview".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from model.arrays import Int64
from model.spec import ModelSpec
from runtime.boxes import clipped
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.formats import layout
from runtime.masks.pixel_rings import IN_PIXEL_PX, MaskRing, mask_rings

_BOX_DECIMALS = 7
# Beyond the digits of a pixel's number: a vertex moves by at most 0.005 pixels.
_EXTRA_DECIMALS = 2
# Ultralytics' `YOLODataset.update_labels_info`, since 8.0.
_RESAMPLED_VERTICES = 1000


def lines(detections: Detections) -> list[str]:
    """A line per detection that has a pixel in the image."""
    height, width = detections.image_hw
    classes = (detections.labels - detections.first_class).tolist()
    if detections.mask_probs is None:
        x0, y0, x1, y1 = clipped(detections.boxes, detections.image_hw).astype(np.float64).T
        rows = np.stack((x0 + x1, y0 + y1, 2 * (x1 - x0), 2 * (y1 - y0)), axis=1) / 2
        rows /= (width, height, width, height)
        is_visible = (rows[:, 2:] > 0).all(axis=1)
        visible = np.flatnonzero(is_visible)
        return [
            _line(classes[row], (_text(number, _BOX_DECIMALS) for number in rows[row].tolist()))
            for row in visible
        ]
    rings = _without_resampling(mask_rings(detections.crops()))
    decimals = len(str(max(height, width))) + _EXTRA_DECIMALS
    x_text, y_text = _pixel_text(width, decimals), _pixel_text(height, decimals)
    return [
        _line(label, (text for x, y in ring.tolist() for text in (x_text(x), y_text(y))))
        for label, ring in zip(classes, rings, strict=True)
        if len(ring)
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


def _without_resampling(rings: Sequence[MaskRing]) -> list[Int64]:
    """The rings of a photo, those with a diagonal step as long as the longest.

    Not those with bridges if that exceeds 1000 vertices: many such rings would be a large file.
    """
    longest = max(_RESAMPLED_VERTICES, *(len(ring.pixels) for ring in rings), 0)
    is_long = longest > _RESAMPLED_VERTICES
    return [
        np.pad(ring.pixels, ((0, longest - len(ring.pixels)), (0, 0)), "edge")
        if ring.has_diagonal and not (ring.has_bridges and is_long)
        else ring.pixels
        for ring in rings
    ]


def _pixel_text(size: int, decimals: int) -> Callable[[int], str]:
    """From a pixel's coordinate to its fraction of the size; a photo's outlines repeat many."""

    @cache
    def text(pixel: int) -> str:
        return _text((pixel + IN_PIXEL_PX) / size, decimals)

    return text


def _line(label: int, numbers: Iterable[str]) -> str:
    return " ".join((str(label), *numbers))


def _text(number: float, decimals: int) -> str:
    return f"{number:.{decimals}f}".rstrip("0").rstrip(".")


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        # A class name may hold a lone surrogate, which has no encoding.
        temporary.write_text(text, "utf-8", "backslashreplace", newline="\n")
