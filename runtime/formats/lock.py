"""One run at a time writes into a folder.

The lock is the system's, on a small file: a process that dies, however it dies, gives it back.
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
    """Held from here until it is closed; its file is removed then.

    A file system that knows no locks goes without.

    Raises:
        UsageError: another run holds it.
        ArtifactError: the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._file = self._locked()

    def close(self) -> None:
        """Give it back; again does nothing."""
        if self._file.closed:
            return
        # While it is held: otherwise the file of the next run could be removed.
        with suppress(OSError):
            self._path.unlink()
        self._file.close()

    def _locked(self) -> BinaryIO:
        while True:
            file = self._opened()
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
            if self._is_still(file):
                return file
            # The run before removed it between our opening and our locking.
            file.close()

    def _opened(self) -> BinaryIO:
        try:
            return self._path.open("ab", buffering=0)
        except OSError as error:
            raise ArtifactError(
                f"cannot write {self._path}: {error.strerror or error}; name a folder that is "
                "writable"
            ) from error

    def _is_still(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


def _lock(file: BinaryIO) -> None:
    """Take the lock or fail at once.

    Raises:
        BlockingIOError: somebody has it.
        OSError: the file system has no locks.
    """
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
