"""What every observer does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np

from model.arrays import Float32

Json = Mapping[str, Any]
LARGEST = float(np.finfo(np.float32).max)


def checked_float32(number: object) -> float:
    """A number read from a file, as the magnitude of a float32.

    Raises:
        ValueError: not a finite non-negative number, or not exactly a float32, like 1e-300.
    """
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not 0.0 <= number <= LARGEST:  # type: ignore[operator]
        raise ValueError(f"{number!r} is not a magnitude")
    magnitude = float(number)  # type: ignore[arg-type]
    if float(np.float32(magnitude)) != magnitude:
        raise ValueError(f"{magnitude!r} is not a float32")
    return magnitude


class Observer(Protocol):
    """Watches one tensor."""

    def observe(self, values: Float32) -> None:
        """Take in one photo's numbers, of any shape, all finite; none at all count for nothing."""
        ...

    @property
    def maximum(self) -> float:
        """The largest magnitude that any range of it could have; 0 when only zeros came."""
        ...

    def largest(self, levels: int) -> float:
        """The magnitude that the last of `levels` steps stands for; 0 when nothing but zeros came.

        Args:
            levels: steps above zero, 127 of a signed code and 255 of an unsigned one.
        """
        ...

    def state(self) -> Json:
        """All that it knows, as JSON."""
        ...

    @classmethod
    def restore(cls, state: Json) -> Self:
        """Take up an observer where `state` was written.

        Raises:
            ValueError, KeyError, TypeError: not a state that this observer can have.
        """
        ...
