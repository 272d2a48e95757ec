"""The user's own files, which a command reads and must not write over."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from model.errors import ImageError, UsageError
from runtime.formats import layout
from runtime.sources.items import Item

# Device and number of a file: one file has one, however its name is written.
_Identity = tuple[int, int]


class Originals:
    """Compares what is read with what would be written.

    Args:
        places: what the user named; files among it, such as lists, count as read.
        known: items that are known beforehand; others count from when they are seen.
        folder: of the results.
        kinds: what is saved.
    """

    def __init__(
        self, places: Iterable[str], known: Collection[Item], folder: Path, kinds: Collection[str]
    ) -> None:
        self._folder = folder
        self._kinds = frozenset(kinds)
        # Files, and the folders of photos: cutouts replace what is in theirs.
        self._read = {found for place in places if (found := _file_identity(place))}
        for item in known:
            self._remember(item)

    def require_safe(self, known: Iterable[Item]) -> None:
        """Before anything is written: what can be told then.

        Raises:
            UsageError: a result would replace a file that is read.
        """
        targets = layout.of_run(self._kinds, self._folder)
        targets += (path for item in known for path in self._targets(item))
        for target in targets:
            if self._is_read(target):
                raise UsageError(
                    f"-o {self._folder}: {target.name} would replace a photo or list that is read; "
                    "name another folder"
                )

    def checked(self, item: Item) -> Item:
        """The item; with an error in the photo's place where its files would replace what is read.

        For sources that tell only on the way what they hold.
        """
        self._remember(item)
        for target in self._targets(item):
            if self._is_read(target):
                problem = ImageError(
                    f"{item.name}: {target} would replace a photo or list that is read; name "
                    "another folder with -o"
                )
                return replace(item, photo=problem)
        return item

    def _targets(self, item: Item) -> list[Path]:
        return layout.of_photo(self._kinds, self._folder, item.stem)

    def _remember(self, item: Item) -> None:
        if isinstance(item.photo, Path):
            self._read.update(filter(None, map(_identity, (item.photo, item.photo.parent))))

    def _is_read(self, target: Path) -> bool:
        return _identity(target) in self._read


def _identity(path: str | Path) -> _Identity | None:
    """None where nothing is."""
    with suppress(OSError, ValueError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _file_identity(place: str) -> _Identity | None:
    return _identity(place) if os.path.isfile(place) else None
