"""What a run has to know of an earlier one to go on where that stopped.

While a run writes, every photo's record goes into a JSON Lines file as soon as all other files of
the photo are there: `results.jsonl` where that was asked for, else a hidden one that is removed
when the run ends well. Beside it stands how the run was made, so that two kinds of results are
never mixed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from model.errors import UsageError
from runtime.files import atomic_path
from runtime.formats import jsonl, layout

_HIDDEN, _SETTINGS = ".results.jsonl", ".resume.json"
# Of a setting in a message: a list of a thousand class names says no more than its beginning.
_MOST_SHOWN = 80


def log_path(folder: Path, kinds: Collection[str]) -> Path:
    """Where the records of a run go that saves `kinds`."""
    return folder / (layout.JSONL if "jsonl" in kinds else _HIDDEN)


def done_names(folder: Path, kinds: Collection[str]) -> set[str]:
    """Names of the photos that an earlier run into `folder`, which saved `kinds`, has finished.

    Raises:
        ArtifactError: Its records cannot be read.
    """
    return jsonl.read_names(log_path(folder, kinds))


def done_ids(folder: Path, kinds: Collection[str]) -> dict[str, int | None]:
    """As `done_names`, each with its image id.

    Raises:
        ArtifactError: Its records cannot be read.
    """
    path = log_path(folder, kinds)
    if not path.exists():
        return {}
    return {found["image"]: found.get("image_id") for found in jsonl.read(path)}


def begin(folder: Path, kinds: Collection[str], settings: Mapping[str, Any], resume: bool) -> None:
    """Note how a run is made; one that resumes must be made as the one before.

    Args:
        folder: Of the results, existing.
        kinds: What it saves.
        settings: What decides the results, as JSON has it.
        resume: Whether to go on; a folder without an earlier run is begun anew.

    Raises:
        UsageError: The earlier run was made otherwise, or it is not known how.
        ArtifactError: The note cannot be written.
    """
    path = folder / _SETTINGS
    # As they come back from a file: a tuple as a list.
    now = json.loads(json.dumps({**settings, "save": sorted(set(kinds))}))
    if resume and path.exists():
        _require_same(folder, _read(path), now)
    elif resume and done_names(folder, kinds):
        raise _unknown(folder)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(now, indent=1) + "\n", "utf-8")


def forget(folder: Path) -> None:
    """Remove the hidden records and the note, after a run that ended well and needs neither."""
    (folder / _HIDDEN).unlink(missing_ok=True)
    (folder / _SETTINGS).unlink(missing_ok=True)


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
