"""A tidy COCO file of two photos, and its labels for a small model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from model.spec import ClassSpec, KeypointHeadSpec, MaskHeadSpec, ModelSpec, ResNetSpec
from runtime.annotations.labeled_photos import find_labeled_photos
from runtime.annotations.labels import Labels, labels_for

Document = dict[str, Any]
Change = Callable[[Document], object]

HEIGHT, WIDTH = 30, 40
BODY = ResNetSpec((1, 1, 1, 1), "basic", 8, (8, 8, 8, 8), (8, 8, 8, 8))
SPEC = ModelSpec(
    "torchvision",
    "none",
    BODY,
    ClassSpec(("__background__", "cat", "dog", "cow")),
    mask=MaskHeadSpec(),
)
BOX_SPEC = ModelSpec("torchvision", "none", BODY, SPEC.classes)
KEYPOINT_SPEC = ModelSpec(
    "torchvision", "none", BODY, SPEC.classes, keypoint=KeypointHeadSpec(names=("head", "tail"))
)


def rectangle(x0: int, y0: int, width: int, height: int) -> Document:
    """Run lengths of a rectangle of pixels: down the columns, background first."""
    runs = [x0 * HEIGHT + y0]
    runs += [height, HEIGHT - height] * width
    runs[-1] += HEIGHT * (WIDTH - x0 - width) - y0
    return {"size": [HEIGHT, WIDTH], "counts": runs}


def compressed(segmentation: Document) -> Document:
    """The same, as pycocotools writes it."""
    from pycocotools import mask

    rle = mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


def plain() -> Document:
    """Two photos with two objects each; the last one is a crowd."""
    corners = [(1, 7, 5, 9, 12), (1, 20, 3, 10, 8), (2, 2, 2, 11, 15), (2, 22, 12, 12, 9)]
    return {
        "info": {"description": "made by hand"},
        "licenses": [],
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in (1, 2)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": 1 + number % 3,
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": int(number == 4),
                "segmentation": compressed(rectangle(x, y, width, height)),
            }
            for number, (image_id, x, y, width, height) in enumerate(corners, start=1)
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": "animal"}
            for number, name in enumerate(("cat", "dog", "cow"), start=1)
        ],
    }


def write_photos(folder: Path) -> None:
    """The photos of `plain`."""
    for name in ("1.png", "2.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)


def write(folder: Path, document: object) -> Path:
    """A file of labels beside the photos."""
    path = folder / "labels.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), "utf-8")
    return path


def labels(folder: Path, document: object, spec: ModelSpec = SPEC) -> Labels:
    """The labels of the photos in a folder."""
    return labels_for(find_labeled_photos(write(folder, document), folder), spec)
