"""Options that count something."""

from __future__ import annotations

import operator

from model.errors import UsageError


def require_count(name: str, value: object) -> None:
    """Require a whole number from 1; NumPy's are taken, True is not.

    Raises:
        UsageError: It is none.
    """
    try:
        is_count = not isinstance(value, bool) and operator.index(value) >= 1  # type: ignore[arg-type]
    except TypeError:
        is_count = False
    if not is_count:
        raise UsageError(f"{name}: expected a whole number from 1, got {value!r}")
