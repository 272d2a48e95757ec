"""Options that count something."""

from __future__ import annotations

import operator

from model.errors import UsageError

# More than any machine has cores. ONNX Runtime starts as many as it is told to, and of a hundred
# thousand it never comes back.
MOST_THREADS = 1024


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


def require_threads(value: object) -> None:
    """Require a number of threads that a network can be given.

    Raises:
        UsageError: It is no whole number from 1, or more than `MOST_THREADS`.
    """
    require_count("threads", value)
    if operator.index(value) > MOST_THREADS:  # type: ignore[arg-type]
        raise UsageError(f"threads: no machine has {value} cores; give at most {MOST_THREADS}")
