"""Opening what a user named as a photo or a video, if it is a file at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from model.errors import ImageError


def open_regular(path: Path, kind: str = "an image") -> BinaryIO:
    """Open a regular file for reading.

    Pipes and devices are refused, and opening one does not block. The opened file is checked, not
    its name.

    Args:
        path: of the file.
        kind: what is expected there, for the message.

    Raises:
        ImageError: no such file, a folder, a pipe or a device, or not readable.
    """
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    except FileNotFoundError as error:
        raise ImageError("no such file; check the path", str(path)) from error
    except IsADirectoryError as error:
        raise ImageError(f"a folder; expected {kind} file", str(path)) from error
    except OSError as error:
        raise ImageError(
            f"cannot be read ({error.strerror}); check permissions and disk", str(path)
        ) from error
    except ValueError as error:  # a zero byte in the name
        raise ImageError("no file can have this name; check it", repr(str(path))) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ImageError(f"a pipe or a device; expected {kind} file", str(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    # Windows has neither the flag nor pipes among its files.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
