"""What a run has to know of an earlier one to go on where that stopped.

While a run writes, every photo's record goes into a JSON Lines file as soon as all other files of
the photo are there: `results.jsonl` where that was asked for, else a hidden one that is removed
when the run ends well. Beside it stands how the run was made, so that two kinds of results are
never mixed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from model.errors import UsageError
from runtime.files import atomic_path
from runtime.formats import jsonl, layout

_HIDDEN, _SETTINGS, _ASIDE = ".results.jsonl", ".resume.json", ".resume-before.json"
# Of a setting in a message: a list of a thousand class names says no more than its beginning.
_MOST_SHOWN = 80


def log_path(folder: Path, kinds: Collection[str]) -> Path:
    """Where the records of a run go that saves `kinds`."""
    return folder / (layout.JSONL if "jsonl" in kinds else _HIDDEN)


def done_ids(folder: Path, kinds: Collection[str]) -> dict[str, int | None]:
    """Photos that an earlier run into `folder`, which saved `kinds`, has finished, with their ids.

    Raises:
        ArtifactError: Its records cannot be read.
    """
    path = log_path(folder, kinds)
    if not path.exists():
        return {}
    return {found["image"]: found.get("image_id") for found in jsonl.read(path)}


class Note:
    """How a run is made, kept beside its records.

    Args:
        folder: Of the results, existing.
        kinds: What the run saves.
        settings: What decides the results, as JSON has it.
    """

    def __init__(self, folder: Path, kinds: Collection[str], settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._path = folder / _SETTINGS
        self._kinds = frozenset(kinds)
        # As they come back from a file: a tuple as a list.
        self._now = json.loads(json.dumps({**settings, "save": sorted(self._kinds)}))

    def require_same(self) -> None:
        """A run that resumes must be made as the one before, if there is one.

        Raises:
            UsageError: It was made otherwise, or it is not known how.
            ArtifactError: Its records cannot be read.
        """
        if self._path.exists():
            _require_same(self._folder, _read(self._path), self._now)
        elif done_ids(self._folder, self._kinds):
            raise _unknown(self._folder)

    def write(self) -> None:
        """Put it there.

        Raises:
            ArtifactError: It cannot be written.
        """
        with atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(self._now, indent=1) + "\n", "utf-8")
        (self._folder / _ASIDE).unlink(missing_ok=True)

    def set_aside(self) -> None:
        """Take away what an earlier run noted: nothing can be said of the records for a moment."""
        with suppress(FileNotFoundError):
            self._path.replace(self._folder / _ASIDE)

    def put_back(self) -> None:
        """Undo that."""
        with suppress(FileNotFoundError):
            (self._folder / _ASIDE).replace(self._path)


def forget(folder: Path) -> None:
    """Remove the hidden records and the note, after a run that ended well and needs neither."""
    for name in (_HIDDEN, _SETTINGS):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        before = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unknown(path.parent) from error
    if not isinstance(before, dict):
        raise _unknown(path.parent)
    return before


def _unknown(folder: Path) -> UsageError:
    return UsageError(
        f"{folder}: holds results, but not how they were made ({_SETTINGS}); name another folder, "
        "or predict again without resume"
    )


def _require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    found = _difference("", before, now)
    if found is not None:
        name, was, is_now = found
        raise UsageError(
            f"{folder}: was begun with {name} {_shown(was)}, now it is {_shown(is_now)}; resume "
            "with the same, or name another folder"
        )


def _difference(name: str, before: Any, now: Any) -> tuple[str, Any, Any] | None:
    """The first part in which two JSON values differ: its name and both."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else key
            if (found := _difference(inner, before.get(key), now.get(key))) is not None:
                return found
        return None
    return None if before == now else (name, before, now)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
