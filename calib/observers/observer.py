"""The protocol of observers, and the check of numbers read from a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np

from model.arrays import Float32

Json = Mapping[str, Any]
_LARGEST = float(np.finfo(np.float32).max)


def checked_float32(number: object) -> float:
    """A number read from a file, as the magnitude of a float32.

    Raises:
        ValueError: not a finite non-negative number, or not exactly a float32, like 1e-300.
    """
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not 0.0 <= number <= _LARGEST:  # type: ignore[operator]
        raise ValueError(f"{number!r} is not a magnitude")
    magnitude = float(number)  # type: ignore[arg-type]
    if float(np.float32(magnitude)) != magnitude:
        raise ValueError(f"{magnitude!r} is not a float32")
    return magnitude


class Observer(Protocol):
    """Collects statistics of one tensor."""

    def observe(self, values: Float32) -> None:
        """Add one photo's values, of any shape, possibly empty, all finite."""
        ...

    @property
    def maximum(self) -> float:
        """The largest magnitude observed; 0 if only zeros were."""
        ...

    def largest(self, levels: int) -> float:
        """The magnitude that the largest code should represent; 0 if only zeros were observed.

        Args:
            levels: steps above zero, 127 of a signed code and 255 of an unsigned one.
        """
        ...

    def state(self) -> Json:
        """Its state as JSON."""
        ...

    @classmethod
    def restore(cls, state: Json) -> Self:
        """The inverse of `state`.

        Raises:
            ValueError, KeyError, TypeError: not a possible state.
        """
        ...
