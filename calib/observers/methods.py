"""The observers by the names of `--method`, and the simplest of them."""

from __future__ import annotations

from typing import Self

import numpy as np

from calib.observers.histogram import Entropy, Mse, Percentile
from calib.observers.observer import Json, Observer, checked_float32
from model.arrays import Float32


class MinMax:
    """Clips nothing; a single outlier sets the range."""

    def __init__(self) -> None:
        self._largest = 0.0

    def observe(self, values: Float32) -> None:
        """Update the largest magnitude."""
        if values.size:
            self._largest = max(self._largest, float(np.abs(values).max()))

    @property
    def maximum(self) -> float:
        """The largest magnitude observed."""
        return self._largest

    def largest(self, levels: int) -> float:
        """The same for any number of levels."""
        return self._largest

    def state(self) -> Json:
        """One number."""
        return {"largest": self._largest}

    @classmethod
    def restore(cls, state: Json) -> Self:
        """The inverse of `state`."""
        observer = cls()
        observer._largest = checked_float32(state["largest"])
        return observer


METHODS: dict[str, type[Observer]] = {
    "min-max": MinMax,
    "percentile": Percentile,
    "entropy": Entropy,
    "mse": Mse,
}
