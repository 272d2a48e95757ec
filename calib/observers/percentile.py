"""The range that covers 99.99 % of the values."""

from __future__ import annotations

import numpy as np

from calib.observers.histogram import Histogram

_FRACTION = 0.9999


class Percentile(Histogram):
    """Clips the largest 0.01 % of the values."""

    def largest(self, levels: int) -> float:
        """Upper edge of the bin that reaches the fraction; the same for any number of levels."""
        counts = self.counts
        if not counts.any() or self.maximum == 0.0:
            return 0.0
        last = np.searchsorted(np.cumsum(counts), _FRACTION * counts.sum())
        return min((int(last) + 1) * self.width, self.maximum)
