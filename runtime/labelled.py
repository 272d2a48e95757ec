"""Photos with COCO annotations: reading them, and finding the photos that they name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.errors import UsageError
from model.spec import ClassSpec


def read_truth(path: Path) -> Mapping[str, Any]:
    """COCO instances.

    Raises:
        UsageError: not readable, or without what scoring needs.
    """
    try:
        truth = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(truth, dict) or not {"images", "annotations", "categories"} <= set(truth):
        raise UsageError(f"{path}: expected COCO's images, annotations and categories")
    if not all(isinstance(truth[part], list) for part in ("images", "annotations", "categories")):
        raise UsageError(f"{path}: expected lists of images, annotations and categories")
    if not all(isinstance(c, dict) and "id" in c for c in truth["categories"]):
        raise UsageError(f"{path}: expected an id of every category")
    if not all(isinstance(i, dict) and {"id", "file_name"} <= set(i) for i in truth["images"]):
        raise UsageError(f"{path}: expected an id and a file_name of every image")
    return truth


def labelled_photos(truth: Mapping[str, Any], folder: Path) -> dict[int, Path]:
    """Labelled photos that are in the folder; how many are not is printed.

    Raises:
        UsageError: none is.
    """
    named = {image["id"]: folder / image["file_name"] for image in truth["images"]}
    present = {image_id: path for image_id, path in named.items() if path.is_file()}
    if not present:
        raise UsageError(
            f"{folder}: none of the {len(named)} labelled photos is there; expected for instance "
            f"{next(iter(named.values()), folder).name}"
        )
    if len(present) < len(named):
        print(f"{len(named) - len(present)} labelled photos are not in {folder}; left out")
    return present


def require_common_categories(
    classes: ClassSpec, truth: Mapping[str, Any], annotations: Path
) -> None:
    """An AP of 0 because labels mean other things on the two sides is worth an error.

    Raises:
        UsageError: the model answers none of the annotations' categories.
    """
    theirs = {category["id"] for category in truth["categories"]}
    if not theirs & {classes.dataset_id(label) for label in range(len(classes.names))}:
        raise UsageError(
            f"{annotations}: none of its category ids {sorted(theirs)[:5]} is one that the model "
            f"can answer; set 'classes.dataset_ids' with --spec when you export"
        )


def unusable_annotations(annotations: Path, error: Exception) -> UsageError:
    """What to say when pycocotools fails on annotations that looked well."""
    return UsageError(
        f"{annotations}: pycocotools cannot use it ({type(error).__name__}: {error}); "
        "expected COCO instances with sizes of images and boxes, areas, segmentations"
    )
