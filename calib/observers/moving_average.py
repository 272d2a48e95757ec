"""A moving average of every photo's largest magnitude."""

from __future__ import annotations

from typing import Self

import numpy as np

from calib.observers.observer import Float32, Json, checked_magnitude

# A photo's share; ONNX Runtime's calibrator has the same default.
SHARE = 0.01


class MovingAverage:
    """Forgets a single outlier slowly; the first photo starts it.

    Source: ONNX Runtime `MinMaxCalibrater(moving_average=True)`.
    """

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._average: float | None = None

    def observe(self, values: Float32) -> None:
        """Move towards this photo's largest magnitude."""
        if not values.size:
            return
        largest = float(np.abs(values).max())
        if self._average is None:
            self._average = largest
        self._average += self._share * (largest - self._average)

    @property
    def maximum(self) -> float:
        """The average: it is the range."""
        return self._average or 0.0

    def largest(self, levels: int) -> float:
        """The same for any number of steps."""
        return self.maximum

    def state(self) -> Json:
        """The share and the average."""
        return {"share": self._share, "average": self._average}

    @classmethod
    def restore(cls, state: Json) -> Self:
        """Take up."""
        share = checked_magnitude(state["share"])
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share {share}")
        observer = cls(share)
        average = state["average"]
        observer._average = None if average is None else checked_magnitude(average)
        return observer
