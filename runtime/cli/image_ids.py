"""The photos of a command, each with its name, the stem of its files, and its COCO image id."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import UsageError
from runtime.sources.items import Item, Source


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One photo and its id."""

    item: Item
    image_id: int


class WorkList:
    """What a source gives, numbered.

    Where all items are known beforehand, are named by whole numbers, and no two alike, as COCO's
    photos are, these numbers are their image ids; otherwise an item's id is its place in the
    source, from 0. What is left out later does not move the ids of the others.

    Args:
        source: iterated as it is worked on, where it does not know its count.
    """

    def __init__(self, source: Source) -> None:
        self._known: Sequence[Item] | None = None if source.count is None else source.known()
        self._source = source
        self._are_named = self._known is not None and _are_numbers(self._known)

    @property
    def count(self) -> int | None:
        """Items in all; None where only the end tells."""
        return None if self._known is None else len(self._known)

    @property
    def id_rule(self) -> str:
        """How ids came about, for people."""
        if self._are_named:
            return "the number in the photo's name"
        return "the photo's place in the list, from 0"

    def tasks(self, done: Collection[str] = ()) -> Generator[Task, None, None]:
        """Those whose names are not in `done`."""
        items = self._source if self._known is None else self._known
        for place, item in enumerate(items):
            if item.name not in done:
                yield Task(item, int(_number(item) or 0) if self._are_named else place)

    def require_ids(self, done: Mapping[str, int | None], folder: Path) -> None:
        """A run can only go on over the photos it was begun with: else ids would be given twice.

        Raises:
            UsageError: a photo that is done has another id here, or is not here at all.
        """
        if self._known is None or not done:
            return
        here = {task.item.name: task.image_id for task in self.tasks()}
        for name, image_id in done.items():
            if here.get(name) != image_id:
                now = f"is {here[name]} now" if name in here else "is not among the photos now"
                raise UsageError(
                    f"{folder}: was begun with other photos or in another order ({name} had "
                    f"image_id {image_id}, it {now}); resume with the same, or name another folder"
                )


def _are_numbers(items: Sequence[Item]) -> bool:
    numbers = [_number(item) for item in items]
    return None not in numbers and len({int(n) for n in numbers if n}) == len(numbers)


def _number(item: Item) -> str | None:
    """The photo's name where it is a number; its stem may have been changed to be unique."""
    if not isinstance(item.photo, Path):
        return None
    stem = item.photo.stem
    return stem if stem.isdecimal() and len(stem) <= 18 else None
