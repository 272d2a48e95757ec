"""What arrays of results must be; the errors are those of an argument."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Half precision rounds a probability by so much at most; a logit or a percentage is further off.
_UNIT_SLACK = 1e-3


def require_array(name: str, array: object, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Require a dtype, a shape, and that every number is finite.

    Raises:
        ValueError: It is not so; names `name`.
    """
    if not isinstance(array, np.ndarray):
        raise ValueError(f"detections: expected {name} as an array, got {type(array).__name__}")
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"detections: expected {name} as {np.dtype(dtype)} {list(shape)}, got {array.dtype} "
            f"{list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"detections: expected finite {name}, got a NaN or an infinity")


def require_probabilities(name: str, array: NDArray[np.float32]) -> None:
    """Require numbers from 0 to 1, but for what half precision rounds.

    Raises:
        ValueError: It is not so; names `name`.
    """
    if array.size and (array.min() < -_UNIT_SLACK or array.max() > 1 + _UNIT_SLACK):
        raise ValueError(
            f"detections: expected {name} from 0 to 1, got {array.min():g} to {array.max():g}"
        )


def require_size(name: str, hw: object) -> None:
    """Require a tuple of two whole numbers from 1.

    Raises:
        ValueError: It is not so; names `name`.
    """
    sides = hw if isinstance(hw, tuple) else ()
    if [isinstance(side, int | np.integer) and side >= 1 for side in sides] != [True, True]:
        raise ValueError(f"detections: expected {name} as two whole numbers from 1, got {hw!r}")
