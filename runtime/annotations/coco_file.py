"""The JSON file: its images, annotations and categories, with ids that are whole or strings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.errors import UsageError
from runtime.annotations.ids import Id, IdIndex, id_of
from runtime.annotations.values import Json, is_missing, shown, whole

# Fields that have the path of a photo, in this order.
_PATH_FIELDS = ("file_name", "path", "coco_url", "flickr_url")


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """An image of the file; `size_hw` is None where the file has none."""

    id: Id
    file_name: str
    size_hw: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class CategoryEntry:
    """A category of the file; `name` is "" where the file has none.

    `keypoints` are the names of its keypoints, in their order; empty where the file has none.
    """

    id: Id
    name: str
    supercategory: str = field(default="", compare=False)
    keypoints: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotation: the ids that it refers to, as listed by the file, and all its fields."""

    image: Id
    category: Id
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CocoFile:
    """COCO instances whose ids agree; `notices` has a line for each oddity."""

    path: Path
    images: Sequence[ImageEntry]
    annotations: Sequence[Annotation]
    categories: Sequence[CategoryEntry]
    notices: tuple[str, ...] = ()


def read_coco(path: Path) -> CocoFile:
    """Read COCO instances.

    Ids may be integers, whole floats or strings. Entries that are listed twice, with the same
    content, count once. Without `categories`, those that the annotations refer to are listed.

    Raises:
        UsageError: not readable, no images, an entry without a usable id, or ids that contradict.
    """
    document = _parsed(path)
    entries = [_image(path, number, one) for number, one in _entries(path, document, "images")]
    images = _unique(path, "image", entries)
    if not images:
        raise UsageError(f"{path}: 'images' is empty; expected the annotated photos")
    notices: list[str] = []
    listed = [_category(path, n, one) for n, one in _entries(path, document, "categories")]
    annotations = [one for _, one in _entries(path, document, "annotations")]
    annotations = _listed_once(annotations, notices)
    references = [
        (_id(path, "annotations", number, one, "image_id"),
         _id(path, "annotations", number, one, "category_id"), one)
        for number, one in enumerate(annotations)
    ]  # fmt: skip
    if not listed:
        ids = dict.fromkeys(category for _, category, _ in references)
        listed = [CategoryEntry(one, "") for one in ids]
    categories = _unique(path, "category", listed)
    joined = _joined(path, images, categories, references, notices)
    return CocoFile(path, images, joined, categories, tuple(notices))


def _parsed(path: Path) -> Json:
    try:
        # From bytes, so that UTF-16 and byte order marks are recognized.
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; expected COCO annotations") from error
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); expected a file of COCO annotations"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not a readable JSON file ({error}); expected COCO annotations"
        ) from error
    if not isinstance(document, dict):
        hint = ", as of COCO results" if isinstance(document, list) else ""
        raise UsageError(
            f"{path}: expected COCO's images, annotations and categories, got a "
            f"{type(document).__name__}{hint}"
        )
    return document


def _entries(path: Path, document: Json, part: str) -> list[tuple[int, Json]]:
    is_optional = part == "categories"
    entries = document.get(part)
    if is_optional and is_missing(entries):
        return []
    if part not in document:
        raise UsageError(
            f"{path}: expected COCO's images, annotations and categories; '{part}' is missing"
        )
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise UsageError(
            f"{path}: expected lists of images, annotations and categories, each entry an object; "
            f"'{part}' is {shown(entries)}"
        )
    return list(enumerate(entries))


def _image(path: Path, number: int, entry: Json) -> ImageEntry:
    names = [entry[field] for field in _PATH_FIELDS if isinstance(entry.get(field), str)]
    name = next(filter(None, names), None)
    if name is None:
        raise UsageError(
            f"{path}: images: expected a string as 'file_name' of every entry, got "
            f"{shown(entry.get('file_name'))} in number {number + 1}"
        )
    sides = [_side(path, name, field, entry.get(field)) for field in ("height", "width")]
    size_hw = None if None in sides else (sides[0] or 0, sides[1] or 0)
    return ImageEntry(_id(path, "images", number, entry), name, size_hw)


def _side(path: Path, name: str, field: str, value: object) -> int | None:
    """A side of an image; 0, which some tools write for an unknown one, counts as missing."""
    if is_missing(value):
        return None
    side = whole(value)
    if side is None or side < 0:
        raise UsageError(
            f"{path}: image {shown(name)}: {field}: expected a number of pixels, got {shown(value)}"
        )
    return side or None


def _category(path: Path, number: int, entry: Json) -> CategoryEntry:
    name, above, points = (entry.get(one) for one in ("name", "supercategory", "keypoints"))
    points = points if isinstance(points, list) else []
    return CategoryEntry(
        _id(path, "categories", number, entry),
        name if isinstance(name, str) else "",
        above if isinstance(above, str) else "",
        tuple(points) if all(isinstance(one, str) for one in points) else (),
    )


def _id(path: Path, part: str, number: int, entry: Json, field: str = "id") -> Id:
    found = id_of(entry.get(field))
    if found is None:
        raise UsageError(
            f"{path}: {part}: expected an integer or a string as '{field}' of every entry, got "
            f"{shown(entry.get(field))} in number {number + 1}"
        )
    return found


def _unique(path: Path, what: str, entries: Sequence[Any]) -> list[Any]:
    """Entries by id, each once.

    Raises:
        UsageError: an id of entries with other contents.
    """
    by_id: dict[Id, Any] = {}
    clashes = [one for one in entries if by_id.setdefault(one.id, one) != one]
    if clashes:
        ids = list(dict.fromkeys(one.id for one in clashes))
        name = "file_name" if what == "image" else "name"
        first, second = (getattr(one, name) for one in (by_id[ids[0]], clashes[0]))
        raise UsageError(
            f"{path}: {len(ids)} {what} ids are used for several entries, like {ids[0]!r} for "
            f"{shown(first)} and {shown(second)}; give every {what} an id of its own"
        )
    return list(by_id.values())


def _listed_once(annotations: Sequence[Json], notices: list[str]) -> list[Json]:
    """Annotations without those that repeat an earlier one, its id included."""
    by_ids: dict[tuple[Id, Id | None], list[Json]] = {}
    kept = []
    for one in annotations:
        own = id_of(one.get("id"))
        same = [] if own is None else by_ids.setdefault((own, id_of(one.get("image_id"))), [])
        if one not in same:
            same.append(one)
            kept.append(one)
    if len(kept) < len(annotations):
        notices.append(
            f"{len(annotations) - len(kept)} of {len(annotations)} annotations repeat another one "
            "with the same id; counted once"
        )
    return kept


def _joined(
    path: Path,
    images: Sequence[ImageEntry],
    categories: Sequence[CategoryEntry],
    references: Sequence[tuple[Id, Id, Json]],
    notices: list[str],
) -> list[Annotation]:
    """Annotations with the ids that the file lists; those of unlisted images are left out."""
    image_index = IdIndex.of(one.id for one in images)
    category_index = IdIndex.of(one.id for one in categories)
    joined, lost, unlisted = [], [], []
    for image_id, category_id, fields in references:
        image, category = image_index.find(image_id), category_index.find(category_id)
        if image is None:
            lost.append(image_id)
        elif category is None:
            unlisted.append(category_id)
        else:
            joined.append(Annotation(image, category, fields))
    if unlisted:
        raise UsageError(
            f"{path}: {len(unlisted)} of {len(references)} annotations have a category_id that "
            f"'categories' does not list ({_some(unlisted)}; listed: "
            f"{_some([one.id for one in categories])}); correct the ids, or add the categories"
        )
    if lost and not joined:
        raise UsageError(
            f"{path}: all {len(lost)} annotations have an image_id that 'images' does not list "
            f"({_some(lost)}; listed: {_some([one.id for one in images])}); correct the ids"
        )
    if lost:
        notices.append(
            f"{len(lost)} of {len(references)} annotations have an image_id that 'images' does not "
            f"list ({_some(lost)}); left out"
        )
    return joined


def _some(ids: Sequence[Id]) -> str:
    distinct = list(dict.fromkeys(ids))
    return ", ".join(map(repr, distinct[:3])) + (", …" if len(distinct) > 3 else "")
