"""Masks by photo: one JSON object, `{image: {"size": [h, w], "detections": [...]}}`.

Each detection has `category` (the class name), `score` and `rle`: COCO's compressed run lengths
with their own `size`, as `pycocotools.mask.decode` takes them. Pixels are those of the original
image.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.errors import ArtifactError
from runtime.files import atomic_path
from runtime.formats import jsonl


def write_from_jsonl(path: Path, records: Path) -> None:
    """Write the masks of a JSON Lines file; memory holds one photo at a time.

    Raises:
        ArtifactError: Two images have the same name, a detection has no mask, or a file cannot be
            read or written. An existing file then stays unchanged.
    """
    names = set()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("{")
        separator = "\n"
        for record in jsonl.read(records):
            image = record["image"]
            if image in names:
                raise ArtifactError(
                    f"cannot write {path}: two images are named {image}; name each once"
                )
            names.add(image)
            entry = json.dumps(_entry(path, record), allow_nan=False)
            file.write(f"{separator}{json.dumps(image)}: {entry}")
            separator = ",\n"
        file.write("\n}\n")


def _entry(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    detections = record["detections"]
    if any("rle" not in detection for detection in detections):
        raise ArtifactError(
            f"cannot write {path}: {record['image']} has detections without masks; the model has "
            "none, save json or jsonl"
        )
    return {
        "size": [record["height"], record["width"]],
        "detections": [
            {"category": d["name"], "score": d["score"], "rle": d["rle"]} for d in detections
        ],
    }
