"""The range with the smallest mean squared error."""

from __future__ import annotations

import numpy as np

from calib.observers.histogram import Histogram

# Tried ranges: shares of the largest magnitude, finer than differences between them matter.
_SHARES = np.arange(1.0, 0.04, -0.01)


class Mse(Histogram):
    """Trades what clipping loses against what a coarser step loses."""

    def largest(self, levels: int) -> float:
        """The tried range with the smallest error; the widest among equals."""
        counts, centres = self.counts, self.centres
        if self.maximum == 0.0:
            return 0.0
        used = counts > 0
        # Exact zeros are coded exactly; as the centre of the first bin they would count as noise.
        centres[0] = 0.0
        weights, values = counts[used].astype(np.float64), centres[used]
        tried = self.maximum * _SHARES
        errors = [_error(values, weights, limit, levels) for limit in tried]
        return float(tried[int(np.argmin(errors))])


def _error(values: np.ndarray, weights: np.ndarray, limit: float, levels: int) -> float:
    step = limit / levels
    rounded = np.minimum(np.rint(values / step), levels) * step
    return float((weights * np.square(rounded - values)).sum())
