"""Categories matched with the model's classes, by name or by id.

Names match apart from letter case and outer spaces. Without a name on either side, ids match.
The background is no category. A name that only repeats the number, like "3" or "class_3", is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import UsageError
from model.spec import ModelSpec
from runtime.annotations.coco_file import CategoryEntry
from runtime.annotations.ids import Id, number_of
from runtime.annotations.values import shown

_BACKGROUND = {"background", "__background__", "_background_", "bg"}
# torchvision's name for ids that COCO left out.
_NO_CLASS = {"n/a"}
_NUMBERED = re.compile(r"(?:(?:class|category|label)[ _-]?)?(\d{1,9})", re.ASCII)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class CategoryMatch:
    """The clean id of every category, the model's where they match; `names` has the clean ids.

    `common` are the ids that both have; `notices` has a line for each oddity.
    """

    ids: Mapping[Id, int]
    names: Mapping[int, str]
    common: frozenset[int]
    notices: tuple[str, ...]


def match_categories(
    path: Path, entries: Sequence[CategoryEntry], objects: Mapping[Id, int], spec: ModelSpec
) -> CategoryMatch:
    """Match a file's categories with a model's classes.

    Args:
        path: of the COCO file, for messages.
        entries: its categories.
        objects: number of objects by category, on the photos to evaluate.
        spec: the model's class names and category ids.

    Raises:
        UsageError: a name twice, or no category in common.
    """
    entries = _without_headings(entries, objects)
    classes = _classes(spec)
    _require_once(path, "the file", [one.name for one in entries if _named(one)])
    theirs = {_key(one.name) for one in entries if _named(one)}
    _require_once(path, "the model", [n for n in classes.values() if n and _key(n) in theirs])

    by_name = {_key(name): number for number, name in classes.items() if name}
    ids = {
        one.id: by_name[_key(one.name)]
        for one in entries
        if _named(one) and _key(one.name) in by_name
    }
    shift = 0 if ids else _shift(entries, classes)
    free = set(classes) - set(ids.values())
    by_id = []
    for one in entries:
        number = number_of(one.id)
        if number is None or number + shift not in free or one.id in ids:
            continue
        if not (_named(one) and classes[number + shift]):
            ids[one.id] = number + shift
            free.discard(number + shift)
            by_id.append(one)
    alone = [one for one in entries if one.id not in ids]
    lost = [one for one in alone if objects.get(one.id, 0)]
    if not ids or (lost and any(_is_by_id(one, classes) for one in lost)):
        raise UsageError(_not_in_common(path, alone if not ids else lost, classes))
    common = frozenset(ids.values())
    notices = [
        *_other_ids([one for one in entries if one not in set(by_id)], ids),
        *_by_id(by_id, shift),
        *_one_sided(alone, objects, sorted(free), classes),
    ]
    # Also behind ids that the model could only give to its background.
    taken = max(map(spec.classes.dataset_id, range(len(spec.classes.names))))
    ids |= {one.id: number for number, one in enumerate(alone, start=taken + 1)}
    names = {n: one.name or classes.get(n) or str(one.id) for one in entries for n in [ids[one.id]]}
    return CategoryMatch(ids, names, common, tuple(notices))


def _is_by_id(entry: CategoryEntry, classes: Mapping[int, str]) -> bool:
    """Whether a category can only be matched by id, since one side has no names."""
    is_nameless = not _named(entry) and _key(entry.name) not in _BACKGROUND
    return is_nameless or not any(classes.values())


def _shift(entries: Sequence[CategoryEntry], classes: Mapping[int, str]) -> int:
    """1 or -1 if file and model number the same count of categories from 0 and 1; otherwise 0.

    Frameworks number classes from 0 or 1, since some put the background first.
    """
    theirs = sorted(-1 if (n := number_of(one.id)) is None else n for one in entries)
    ours = sorted(classes)
    shift = (ours or [0])[0] - (theirs or [0])[0]
    is_from_0_or_1 = {*theirs[:1], *ours[:1]} == {0, 1}
    is_consecutive = ours == list(range(ours[0], ours[0] + len(ours)))
    return shift if is_from_0_or_1 and is_consecutive and [n + shift for n in theirs] == ours else 0


def _without_headings(
    entries: Sequence[CategoryEntry], objects: Mapping[Id, int]
) -> list[CategoryEntry]:
    """Entries that can have objects.

    Left out if unused: the background, and Roboflow's entry that is the others' supercategory.
    """
    above = Counter(one.supercategory for one in entries)
    return [
        one
        for one in entries
        if objects.get(one.id, 0)
        or one.name == ""
        or not (
            _key(one.name) in _BACKGROUND | _NO_CLASS
            or above[one.name] > (one.supercategory == one.name)
        )
    ]


def _classes(spec: ModelSpec) -> dict[int, str]:
    """The model's names by category id, without the background; "" for a class without a name."""
    first = 1 if spec.box.background == "first" else 0
    classes: dict[int, str] = {}
    for label, name in list(enumerate(spec.classes.names))[first:]:
        number = spec.classes.dataset_id(label)
        if _key(name) in _BACKGROUND | _NO_CLASS:
            continue
        is_numbered = _is_numbered(name, number) or _is_numbered(name, label)
        classes[number] = "" if is_numbered else name
    return classes


def _named(entry: CategoryEntry) -> bool:
    key = _key(entry.name)
    return key not in {"", *_BACKGROUND, *_NO_CLASS} and not _is_numbered(
        entry.name, number_of(entry.id)
    )


def _is_numbered(name: str, number: int | None) -> bool:
    numbered = _NUMBERED.fullmatch(_key(name))
    return numbered is not None and int(numbered[1]) == number


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _require_once(path: Path, side: str, names: Sequence[str]) -> None:
    counts = Counter(map(_key, names))
    twice = [name for name in names if counts[_key(name)] > 1]
    if twice:
        raise UsageError(
            f"{path}: {side} has {len({_key(n) for n in twice})} category names twice "
            f"({_list(dict.fromkeys(twice))}; letter case and outer spaces apart); names must "
            "differ, since categories are matched by name"
        )


def _not_in_common(path: Path, entries: Sequence[CategoryEntry], classes: Mapping[int, str]) -> str:
    theirs = _list([f"{one.id} {shown(one.name)}" if one.name else repr(one.id) for one in entries])
    ours = _list([f"{n} {shown(name)}" if name else str(n) for n, name in classes.items()])
    remedy = (
        "set the model's names with --names, or its ids as 'classes.dataset_ids' with --spec, when "
        "you export"
        if any(_is_by_id(one, classes) for one in entries)
        else "rename them, or remove their names to match by id"
    )
    return (
        f"{path}: {len(entries)} of its categories ({theirs}) are not among the {len(classes)} "
        f"that the model can predict ({ours}); {remedy}"
    )


def _other_ids(entries: Sequence[CategoryEntry], ids: Mapping[Id, int]) -> list[str]:
    moved = [one for one in entries if ids.get(one.id, number_of(one.id)) != number_of(one.id)]
    if not moved:
        return []
    first = moved[0]
    return [
        f"categories are matched by name; {len(moved)} of {len(ids)} have other ids in the model "
        f"(the file's {first.id} {shown(first.name)} is the model's {ids[first.id]})"
    ]


def _by_id(entries: Sequence[CategoryEntry], shift: int) -> list[str]:
    if not entries:
        return []
    side = "the model" if all(map(_named, entries)) else "the file"
    line = f"{len(entries)} categories are matched by id, since {side} has no names for them"
    if shift:
        start = 0 if shift > 0 else 1
        line += (
            f"; the file's ids run from {start}, the model's from {start + shift}: in this order"
        )
    return [line]


def _one_sided(
    alone: Sequence[CategoryEntry],
    objects: Mapping[Id, int],
    missing: Sequence[int],
    classes: Mapping[int, str],
) -> list[str]:
    parts = []
    if alone:
        lost = sum(objects.get(one.id, 0) for one in alone)
        names = _list([one.name or repr(one.id) for one in alone])
        parts.append(
            f"{len(alone)} only in the file ({names}; its {lost} objects count as missed"
            f"{_other_name(alone, missing, classes)})"
        )
    if missing:
        names = _list([classes[number] or str(number) for number in missing])
        parts.append(f"{len(missing)} only in the model ({names}; not scored)")
    return [f"categories: {', '.join(parts)}"] if parts else []


def _other_name(
    alone: Sequence[CategoryEntry], missing: Sequence[int], classes: Mapping[int, str]
) -> str:
    """The first category whose id is a class with another name, which may be a synonym."""
    for one in alone:
        number = number_of(one.id)
        if number is not None and number in missing and one.name:
            return f"; its {number} {shown(one.name)} is the model's {shown(classes[number])}"
    return ""


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
