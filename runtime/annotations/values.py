"""Numbers and missing values of JSON files, and their display in messages."""

from __future__ import annotations

import math
import re
from typing import Any

Json = dict[str, Any]
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*", re.ASCII)
_SHOWN_CHARS = 80
# From here on, neighboring whole numbers are the same float.
FLOAT_WHOLE_LIMIT = 2**53


def is_missing(value: object) -> bool:
    """Whether a value is null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: object) -> float | None:
    """A finite number, or text of one, as a float; None for all else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        as_float = float(value)
    except OverflowError:
        return None
    return as_float if math.isfinite(as_float) else None


def whole(value: object) -> int | None:
    """A whole number that a float can hold, or text of one, as an int; None for all else."""
    as_float = number(value)
    if as_float is None or not as_float.is_integer() or abs(as_float) >= FLOAT_WHOLE_LIMIT:
        return None
    return int(as_float)


def shown(value: object) -> str:
    """A value in a message, cut to 80 characters."""
    # Cut first: the text of a whole document would take long.
    text = repr(value[:_SHOWN_CHARS] if isinstance(value, str | list) else value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
