"""Opens a photo or a video only if it is a regular file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from model.errors import ImageError


def open_regular(path: Path, expected: str = "an image") -> BinaryIO:
    """Open a regular file for reading.

    Pipes and devices are refused, and opening one does not block. The check is on the open file,
    not on its name.

    Args:
        path: of the file.
        expected: description of the file, for the message.

    Raises:
        ImageError: no such file, a folder, a pipe or a device, or not readable.
    """
    try:
        file = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115
    except FileNotFoundError as error:
        raise ImageError("no such file; check the path", str(path)) from error
    except IsADirectoryError as error:
        raise ImageError(f"a folder; expected {expected} file", str(path)) from error
    except OSError as error:
        message = f"cannot be read ({error.strerror}); check permissions and disk"
        raise ImageError(message, str(path)) from error
    except ValueError as error:  # a zero byte in the name
        raise ImageError("no file can have this name; check it", repr(str(path))) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ImageError(f"a pipe or a device; expected {expected} file", str(path))
    return file


def _open_nonblocking(path: str, flags: int) -> int:
    # Windows has no such flag, and no pipes in its file system.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
