"""COCO image ids for the photos of a command."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from model.errors import UsageError
from runtime.sources.items import Item, Source


class NumberedItems:
    """The items of a source, each with its image id.

    If all items are known beforehand and their file names are distinct whole numbers, as those of
    COCO's photos, these numbers are the ids. Otherwise an item's id is its index in the source,
    from 0. Items that are skipped do not change the ids of the others.

    Args:
        source: Iterated once if it has no count.
    """

    def __init__(self, source: Source) -> None:
        self._known: Sequence[Item] | None = None if source.count is None else source.known()
        self._source = source
        self._has_numbers = self._known is not None and _are_numbers(self._known)

    @property
    def count(self) -> int | None:
        """Number of items; None if the source has no count."""
        return None if self._known is None else len(self._known)

    @property
    def id_rule(self) -> str:
        """Where the ids come from, for people."""
        if self._has_numbers:
            return "the number in the photo's name"
        return "the photo's index in the list, from 0"

    def items(self, done: Collection[str] = ()) -> Generator[Item, None, None]:
        """Items whose names are not in `done`, with their ids."""
        items = self._source if self._known is None else self._known
        for index, item in enumerate(items):
            if item.name not in done:
                image_id = int(_number(item) or 0) if self._has_numbers else index
                yield replace(item, image_id=image_id)

    def require_ids(self, done: Mapping[str, int | None], folder: Path) -> None:
        """Require that finished photos keep their ids: otherwise an id would be used twice.

        Raises:
            UsageError: A finished photo has another id here, or is missing.
        """
        if self._known is None or not done:
            return
        here = {item.name: item.image_id for item in self.items()}
        for name, image_id in done.items():
            if here.get(name) != image_id:
                now = f"now has {here[name]}" if name in here else "is not listed now"
                raise UsageError(
                    f"{folder}: the earlier run had other photos or another order ({name} had "
                    f"image_id {image_id}, {now}); resume with the same photos, or name another "
                    "folder"
                )


def _are_numbers(items: Sequence[Item]) -> bool:
    numbers = [_number(item) for item in items]
    return None not in numbers and len({int(n) for n in numbers if n}) == len(numbers)


def _number(item: Item) -> str | None:
    """The photo's file name if it is a number; `Item.stem` may have been changed to be unique."""
    if not isinstance(item.photo, Path):
        return None
    stem = item.photo.stem
    return stem if stem.isdecimal() and len(stem) <= 18 else None
