"""What every observer does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Json = Mapping[str, Any]


def checked_magnitude(number: object) -> float:
    """A number out of a file.

    Raises:
        ValueError, TypeError: not a magnitude.
    """
    magnitude = float(number)  # type: ignore[arg-type]
    if not 0.0 <= magnitude < float("inf"):
        raise ValueError(f"{magnitude} is no magnitude")
    return magnitude


class Observer(Protocol):
    """Watches one tensor."""

    def observe(self, values: Float32) -> None:
        """Take in one photo's numbers, of any shape, all finite; none at all count for nothing."""
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
            ValueError, KeyError, TypeError: not a state of this observer.
        """
        ...
