"""Files that are written completely or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from model.errors import ArtifactError, UsageError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which replaces `path` when the block succeeds.

    The temporary file keeps the suffix, for writers that use it, and is flushed to disk before it
    replaces `path`. If the block fails or is interrupted, it is removed and `path` stays unchanged.

    Raises:
        ArtifactError: The file cannot be written; any OSError of the block becomes one.
    """
    # A symbolic link is kept; its target is replaced.
    target = Path(os.path.realpath(path))
    # The full name plus the random part could exceed the file system's limit.
    temporary = target.parent / f".{target.stem[:40]}.{secrets.token_hex(4)}{target.suffix}"
    try:
        _claim(target, temporary)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ArtifactError(_explain(path, temporary, error)) from error
        raise
    _flush_directory(target.parent)


def _claim(target: Path, temporary: Path) -> None:
    if target.exists() and not target.is_file():
        got = "a folder" if target.is_dir() else "a device"
        raise ArtifactError(f"cannot write {target}: expected a file, got {got}; name another")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_directory(folder: Path) -> None:
    # Some systems cannot open or flush a folder; the file itself is complete.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _explain(path: Path, temporary: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    named = error.filename
    if named is not None and os.fspath(named) not in (os.fspath(temporary), os.fspath(path)):
        reason += f" ({named})"
    return f"cannot write {path}: {reason}; name a folder that exists, is writable and has room"


def refuse_overwrite(output: Path, *inputs: str | Path | None) -> None:
    """Refuse an output that is one of the inputs.

    Raises:
        UsageError: it is, by whatever path.
    """
    for path in inputs:
        if path is not None and os.path.realpath(output) == os.path.realpath(path):
            raise UsageError(f"{output}: the output would overwrite an input; use another name")


def make_folder(folder: Path, option: str = "--run-dir") -> None:
    """Make a folder of results, with its parents; `option` names another, for the message.

    Raises:
        ArtifactError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot create the folder ({error.strerror}); name another with {option}"
        ) from error
