"""Lists of files: one path per line, in a text file or on standard input."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from model.errors import UsageError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Longer than any path; limits the memory of a file without line ends.
_LONGEST_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """An entry of a list: `where` is the list's name and the line's number, from 1."""

    where: str
    path: Path


def read_list(path: Path) -> list[Line]:
    """The entries of a list file, relative to its folder; see `lines`.

    Raises:
        UsageError: the list cannot be read or is not text.
    """
    try:
        with path.open("rb") as file:
            return list(lines(file, str(path), path.parent))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot read the list ({error.strerror}); check path and permissions"
        ) from error


def lines(stream: BinaryIO | TextIO, name: str, folder: Path) -> Iterator[Line]:
    """Yield entries as they arrive, without blank lines and lines that begin with #.

    Spaces around a path are removed. Write a path that begins with # as "./#…".

    Args:
        stream: bytes, decoded as the system decodes file names, or text.
        name: of the list, for messages.
        folder: base of relative paths.

    Raises:
        UsageError: a line longer than a path can be, or with a zero byte.
    """
    number = 0
    while line := stream.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise UsageError(
                f"{name}:{number}: longer than a path can be; expected one path per line"
            )
        text = _text(line, number).strip()
        if "\0" in text:
            raise UsageError(f"{name}:{number}: not text; expected one path per line")
        if text and not text.startswith("#"):
            yield Line(f"{name}:{number}", folder / text)


def _text(line: bytes | str, number: int) -> str:
    if isinstance(line, str):
        return line
    return os.fsdecode(line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line)
