"""Protection of the user's files: a command must not overwrite what it reads."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from model.errors import ImageError, UsageError
from runtime.formats import layout
from runtime.sources.items import Item

# Device and inode: the same for every name of a file.
_Identity = tuple[int, int]


class OverwriteGuard:
    """Compares the files that are read with those that would be written.

    Args:
        arguments: photos, lists and folders as the user named them; files among them are read.
        known: items that are known beforehand; others are added as they come.
        folder: of the results.
        formats: of the results (`runtime.formats.result_writer.FORMATS`).
    """

    def __init__(
        self,
        arguments: Iterable[str],
        known: Collection[Item],
        folder: Path,
        formats: Collection[str],
    ) -> None:
        self._folder = folder
        self._formats = frozenset(formats)
        # Files, and the folders of photos: cutouts replace the files in theirs.
        files = filter(os.path.isfile, arguments)
        self._read = set(filter(None, map(_identity, files)))
        for item in known:
            self._remember(item)

    def require_safe(self, known: Iterable[Item]) -> None:
        """Check everything that is known before the first file is written.

        Raises:
            UsageError: a result would replace a file that is read.
        """
        targets = layout.of_run(self._formats, self._folder)
        targets += (path for item in known for path in self._targets(item))
        for target in targets:
            if self._is_read(target):
                raise UsageError(
                    f"-o {self._folder}: {target.name} would overwrite an input; "
                    "name another folder"
                )

    def checked(self, item: Item) -> Item:
        """The item; with an error instead of the photo if its results would replace a read file.

        For sources whose items are not known beforehand.
        """
        self._remember(item)
        for target in self._targets(item):
            if self._is_read(target):
                problem = ImageError(
                    f"{target} would overwrite an input; name another folder with -o",
                    item.name,
                )
                return replace(item, photo=problem)
        return item

    def _targets(self, item: Item) -> list[Path]:
        return layout.of_photo(self._formats, self._folder, item.stem)

    def _remember(self, item: Item) -> None:
        if isinstance(item.photo, Path):
            self._read.update(filter(None, map(_identity, (item.photo, item.photo.parent))))

    def _is_read(self, target: Path) -> bool:
        return _identity(target) in self._read


def _identity(path: str | Path) -> _Identity | None:
    """None if there is no such file."""
    with suppress(OSError, ValueError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None
