"""Checks of a spec's values; each raises `SpecError` with the field and the value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from model.errors import SpecError

MOST = 1_000_000  # the largest allowed count
# Metadata of a field that was added later: files without it have its default.
ADDED: Mapping[str, bool] = {"added": True}


def require(condition: bool, message: str) -> None:
    """Raise `SpecError` with `message` if the condition is false."""
    if not condition:
        raise SpecError(message)


def counts(where: str, **counts: int | Sequence[int]) -> None:
    """Require integers from 1 to `MOST`, or sequences of them."""
    for name, value in counts.items():
        values = [value] if isinstance(value, int) else value
        require(
            all(1 <= v <= MOST for v in values),
            f"{where}: {name} must be from 1 to {MOST}, got {value}",
        )


def in_unit_interval(where: str, **values: float) -> None:
    """Require numbers in [0, 1], not NaN."""
    for name, value in values.items():
        require(0.0 <= value <= 1.0, f"{where}: {name} must be in [0, 1], got {value}")


def positive(where: str, **values: Sequence[float]) -> None:
    """Require sequences of numbers above 0 and below infinity."""
    for name, numbers in values.items():
        require(
            all(0 < v < math.inf for v in numbers),
            f"{where}: {name} must be positive and finite, got {', '.join(map(str, numbers))}",
        )


def not_negative(where: str, **values: float) -> None:
    """Require numbers of 0 or more, below infinity."""
    for name, value in values.items():
        require(
            0.0 <= value < math.inf, f"{where}: {name} must be 0 or more and finite, got {value}"
        )
