"""One run at a time writes into a folder.

The operating system holds the lock on a small file and releases it when the process ends.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from model.errors import ArtifactError, UsageError
from runtime.closing import Closing

_NAME = ".predict.lock"


class FolderLock(Closing):
    """Held until it is closed, which removes its file.

    A file system without locks is used without one.

    Raises:
        UsageError: another run holds the lock.
        ArtifactError: the file cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._file = self._acquire()

    def close(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._file.closed:
            return
        # Before the release: afterwards the file may belong to the next run.
        with suppress(OSError):
            self._path.unlink()
        self._file.close()

    def _acquire(self) -> BinaryIO:
        while True:
            file = self._open()
            try:
                _lock(file)
            except BlockingIOError as error:
                file.close()
                raise UsageError(
                    f"{self._path.parent}: another run is writing there; wait until it ends, or "
                    "name another folder"
                ) from error
            except OSError:
                return file
            if self._is_at_path(file):
                return file
            # The previous run removed it between the open and the lock.
            file.close()

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("ab", buffering=0)
        except OSError as error:
            raise ArtifactError(
                f"cannot write {self._path}: {error.strerror or error}; name a folder that is "
                "writable"
            ) from error

    def _is_at_path(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


def _lock(file: BinaryIO) -> None:
    """Take the lock; `BlockingIOError` if it is held, `OSError` on a file system without locks."""
    try:
        import fcntl
    except ImportError:
        _lock_on_windows(file)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_on_windows(file: BinaryIO) -> None:
    import msvcrt

    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except PermissionError as error:
        raise BlockingIOError(error.errno, error.strerror) from error
