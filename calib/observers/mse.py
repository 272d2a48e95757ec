"""The range with the smallest mean squared error."""

from __future__ import annotations

import numpy as np

from calib.observers.histogram import Histogram

# Candidate ranges as fractions of the largest magnitude.
_FRACTIONS = np.arange(1.0, 0.04, -0.01)


class Mse(Histogram):
    """Balances the error of clipping against that of a larger step."""

    def largest(self, levels: int) -> float:
        """The candidate with the smallest error; the widest among equals."""
        counts, centers = self.counts, self.centers
        if self.maximum == 0.0:
            return 0.0
        used = counts > 0
        # Zeros have no rounding error; at the center of the first bin they would.
        centers[0] = 0.0
        weights, values = counts[used].astype(np.float64), centers[used]
        candidates = self.maximum * _FRACTIONS
        errors = [_error(values, weights, limit, levels) for limit in candidates]
        return float(candidates[int(np.argmin(errors))])


def _error(values: np.ndarray, weights: np.ndarray, limit: float, levels: int) -> float:
    step = limit / levels
    rounded = np.minimum(np.rint(values / step), levels) * step
    return float((weights * np.square(rounded - values)).sum())
