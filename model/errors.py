"""Errors that a user can act on: each message has what, where, expected, got and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

# A ResNet-152 with BatchNorm has under 1,000 names of under 70 characters. difflib compares every
# pair of characters, which takes seconds on a file with many long names.
_MAX_NAMES, _MAX_LENGTH = 2000, 200


class MaskportError(Exception):
    """Base of every error that a command prints as one message, without a traceback."""


class UsageError(MaskportError):
    """The command line or an argument is wrong; a command exits with status 2."""


class CheckpointError(MaskportError):
    """A weights file cannot be read, is unsafe, or is of an unknown dialect."""


class ModelError(MaskportError):
    """A live model cannot be read or exported, or the user's code does not build one."""


class SpecError(MaskportError):
    """A `ModelSpec`, or a part of one, is malformed or contradicts itself."""


class ArtifactError(MaskportError):
    """A deployable file is damaged, was not made by maskport, or does not fit the request."""


class ImageError(MaskportError):
    """One input image cannot be used.

    Attributes:
        where: Names the image in the message; "" until a caller that knows the name sets it.
    """

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem)
        self.where = where

    def __str__(self) -> str:
        problem = super().__str__()
        return f"{self.where}: {problem}" if self.where else problem


class MissingDependencyError(MaskportError):
    """An optional library is missing; the message has the package to install."""


class ExportError(MaskportError):
    """The graph could not be produced, or the produced file failed its check."""


class EngineBuildError(MaskportError):
    """A compiler rejected the graph or failed; names the node and what to do, if known."""


class DeviceError(MaskportError):
    """There is no usable GPU, or a call to it failed."""


class AssumptionWarning(UserWarning):
    """Values of a checkpoint's model that are in neither the file nor the options."""


def in_brief(error: BaseException, most: int = 200) -> str:
    """A library's message as one line of at most `most` characters, for use in parentheses."""
    return " ".join(str(error).split())[:most]


def first_line(error: BaseException, most: int = 120) -> str:
    """The first line of a library's message, or the error's type if there is none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:most]


def require_one_of(option: str, value: object, known: Collection[str]) -> None:
    """Refuse a value that is none of the known ones.

    Raises:
        UsageError: names the option and what it may be.
    """
    if value not in list(known):
        raise UsageError(f"{option}: expected one of {', '.join(known)}, got '{value}'")


@contextmanager
def image_named(where: str) -> Iterator[None]:
    """Set `where` in an `ImageError` that the block raises without one."""
    try:
        yield
    except ImageError as error:
        error.where = error.where or where
        raise


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """The closest match to `name`; None if no name is close.

    Only the first 2,000 names of at most 200 characters are compared.
    """
    if len(name) > _MAX_LENGTH:
        return None
    candidates = (other for other in names if len(other) <= _MAX_LENGTH)
    close = difflib.get_close_matches(name, islice(candidates, _MAX_NAMES), n=1)
    return close[0] if close else None


def closest_hint(name: str, names: Iterable[str], what: str = "closest in the file") -> str:
    """The closest name for the end of a message, like " (closest in the file: 'a')", or ""."""
    close = closest_name(name, names)
    return f" ({what}: '{close}')" if close else ""
