"""The name that a user may have meant, in bounded time."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

# A ResNet-152 with BatchNorm has under 1,000 names of under 70 letters. difflib compares all
# letters of all names: 19,000 names in a hostile file would take it 12 s.
_MOST_NAMES, _MOST_LETTERS = 2000, 200


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is most like `name`; None where none is, or they are beyond reason.

    Only the first 2,000 of at most 200 letters are looked at.
    """
    if len(name) > _MOST_LETTERS:
        return None
    candidates = (other for other in names if len(other) <= _MOST_LETTERS)
    close = difflib.get_close_matches(name, islice(candidates, _MOST_NAMES), n=1)
    return close[0] if close else None
