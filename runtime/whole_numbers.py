"""Checks of options that are counts."""

from __future__ import annotations

import operator

from model.errors import UsageError

# More than any machine has cores.
MAX_THREADS = 1024


def require_count(name: str, value: object) -> None:
    """Require a whole number from 1; NumPy's integers pass, True does not.

    Raises:
        UsageError: Otherwise.
    """
    try:
        is_count = not isinstance(value, bool) and operator.index(value) >= 1  # type: ignore[arg-type]
    except TypeError:
        is_count = False
    if not is_count:
        raise UsageError(f"{name}: expected a whole number from 1, got {value!r}")


def require_threads(value: object) -> None:
    """Require a number of threads.

    Raises:
        UsageError: Not a whole number from 1 to `MAX_THREADS`.
    """
    require_count("threads", value)
    if operator.index(value) > MAX_THREADS:  # type: ignore[arg-type]
        raise UsageError(f"threads: expected at most {MAX_THREADS}, got {value}")
