"""Photos with COCO annotations: reading them, and finding the photos that they name."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from model.errors import UsageError
from model.spec import ClassSpec

_SHOWN_LETTERS = 80


def read_truth(path: Path) -> Mapping[str, Any]:
    """COCO instances.

    Raises:
        UsageError: not readable, or without what scoring needs.
    """
    try:
        truth = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not a readable JSON file ({error}); expected COCO annotations"
        ) from error
    if not isinstance(truth, dict) or not {"images", "annotations", "categories"} <= set(truth):
        raise UsageError(f"{path}: expected COCO's images, annotations and categories")
    if not all(isinstance(truth[part], list) for part in ("images", "annotations", "categories")):
        raise UsageError(f"{path}: expected lists of images, annotations and categories")
    if not all(isinstance(c, dict) and _is_id(c.get("id")) for c in truth["categories"]):
        raise UsageError(f"{path}: expected an id, a number or a text, of every category")
    if not all(isinstance(i, dict) and _is_id(i.get("id")) for i in truth["images"]):
        raise UsageError(f"{path}: expected an id, a number or a text, of every image")
    if not all(isinstance(i.get("file_name"), str) for i in truth["images"]):
        raise UsageError(f"{path}: expected a file_name, a text, of every image")
    return truth


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def labelled_photos(truth: Mapping[str, Any], folder: Path) -> dict[Any, Path]:
    """Labelled photos that are in the folder, by image id; how many are not is printed.

    Raises:
        UsageError: none is.
    """
    named = {image["id"]: folder / image["file_name"] for image in truth["images"]}
    # A name that no file can have is that of an absent one.
    present = {image_id: path for image_id, path in named.items() if os.path.isfile(path)}
    if not present:
        raise UsageError(
            f"{folder}: none of the {len(named)} labelled photos is there; expected for instance "
            f"{next(iter(named.values()), folder).name[:_SHOWN_LETTERS]}"
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
            f"{annotations}: none of its category ids {_some(theirs)} is one that the model "
            f"can answer; set 'classes.dataset_ids' with --spec when you export"
        )


def _some(ids: Collection[int | str]) -> list[int | str]:
    """The first five, numbers before texts."""
    return sorted(ids, key=lambda one: (isinstance(one, str), one))[:5]


def unusable_annotations(annotations: Path, error: Exception) -> UsageError:
    """What to say when pycocotools fails on annotations that looked well."""
    return UsageError(
        f"{annotations}: pycocotools cannot use it ({type(error).__name__}: {error}); "
        "expected COCO instances with sizes of images and boxes, areas, segmentations"
    )
