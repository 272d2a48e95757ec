"""The records and settings that a run needs to resume an earlier one.

A run writes each photo's record into a JSON Lines file after the photo's other files:
`results.jsonl` if that format was chosen, else a hidden file that a successful run removes. A
second file holds the run's settings, so that different results are never mixed.
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
# Characters of a setting in a message: a list may have a thousand class names.
_MOST_SHOWN = 80


def log_path(folder: Path, formats: Collection[str]) -> Path:
    """The file of a run's records."""
    return folder / (layout.JSONL if "jsonl" in formats else _HIDDEN)


def done_ids(folder: Path, formats: Collection[str]) -> dict[str, int | None]:
    """Names and image ids of the photos that an earlier run with these formats has finished.

    Raises:
        ArtifactError: Its records cannot be read.
    """
    path = log_path(folder, formats)
    if not path.exists():
        return {}
    return {record["image"]: record.get("image_id") for record in jsonl.read(path)}


class RunSettings:
    """The settings of a run, in a file beside its records.

    Args:
        folder: Of the results, existing.
        formats: Of the results.
        settings: Options that change the results, as JSON data.
    """

    def __init__(self, folder: Path, formats: Collection[str], settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._path = folder / _SETTINGS
        self._formats = frozenset(formats)
        # In the form that reading a file gives: a tuple is a list.
        self._now = json.loads(json.dumps({**settings, "save": sorted(self._formats)}))

    def require_same(self, except_for: Collection[str] = ()) -> None:
        """Require the settings of the earlier run, if there is one, `except_for` these names.

        Raises:
            UsageError: They differ or are unknown.
            ArtifactError: Its records cannot be read.
        """
        if self._path.exists():
            before, now = (
                {name: value for name, value in one.items() if name not in except_for}
                for one in (_read(self._path), self._now)
            )
            _require_same(self._folder, before, now)
        elif done_ids(self._folder, self._formats):
            raise _unknown(self._folder)

    def write(self) -> None:
        """Write the file.

        Raises:
            ArtifactError: It cannot be written.
        """
        with atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(self._now, indent=1) + "\n", "utf-8")
        (self._folder / _ASIDE).unlink(missing_ok=True)

    def set_aside(self) -> None:
        """Move the file of an earlier run away, while its records are replaced."""
        with suppress(FileNotFoundError):
            self._path.replace(self._folder / _ASIDE)

    def put_back(self) -> None:
        """Undo `set_aside`."""
        with suppress(FileNotFoundError):
            (self._folder / _ASIDE).replace(self._path)


def forget(folder: Path) -> None:
    """Remove the hidden records and the settings after a successful run."""
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
        f"{folder}: holds results without their settings ({_SETTINGS}); name another folder, "
        "or run again without resume"
    )


def _require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    difference = _difference("", before, now)
    if difference is not None:
        name, old, new = difference
        raise UsageError(
            f"{folder}: the earlier run had {name} {_shown(old)}, this one has {_shown(new)}; "
            "resume with the same options, or name another folder"
        )


def _difference(name: str, before: Any, now: Any) -> tuple[str, Any, Any] | None:
    """Name and both values of the first difference between two JSON values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else key
            if (first := _difference(inner, before.get(key), now.get(key))) is not None:
                return first
        return None
    return None if before == now else (name, before, now)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
