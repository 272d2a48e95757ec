"""Masks by photo: one JSON object, `{image: {"size": [h, w], "detections": [...]}}`.

Each detection has `category` (the class's name), `score` and `rle`, which is COCO's compressed run
lengths with its own `size`, so that `pycocotools.mask.decode` takes it as it is. Pixels are those
of the original image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model.errors import ArtifactError
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.formats import jsonl


def write(path: Path, results: Iterable[tuple[str, Detections]]) -> None:
    """Write all images' masks, given with the images' names.

    Raises:
        ArtifactError: Two images have one name, there are no masks, or the file cannot be written;
            an existing one then stays as it was.
    """
    _write(path, (jsonl.record(image, found) for image, found in results))


def write_from_jsonl(path: Path, records: Path) -> None:
    """Write what `write` would, out of a JSON Lines file; one photo at a time is in memory.

    Raises:
        ArtifactError: As `write`, or the JSON Lines file cannot be read.
    """
    _write(path, jsonl.read(records))


def _write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    seen = set()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("{")
        separator = "\n"
        for record in records:
            image = record["image"]
            if image in seen:
                raise ArtifactError(
                    f"cannot write {path}: two images are named {image}; name each once"
                )
            seen.add(image)
            entry = json.dumps(_entry(path, record), allow_nan=False)
            file.write(f"{separator}{json.dumps(image)}: {entry}")
            separator = ",\n"
        file.write("\n}\n")


def _entry(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    found = record["detections"]
    if any("rle" not in row for row in found):
        raise ArtifactError(
            f"cannot write {path}: {record['image']} has detections without masks; the model has "
            "none, save json or jsonl"
        )
    keys = {"category": "name", "score": "score", "rle": "rle"}
    return {
        "size": [record["height"], record["width"]],
        "detections": [{key: row[ours] for key, ours in keys.items()} for row in found],
    }
