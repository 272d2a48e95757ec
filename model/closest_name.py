"""The name that a user may have meant, in bounded time."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

# A ResNet-152 with BatchNorm has under 1,000 names of under 70 characters. difflib compares every
# pair of characters, which takes seconds on a file with many long names.
_MAX_NAMES, _MAX_LENGTH = 2000, 200


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
