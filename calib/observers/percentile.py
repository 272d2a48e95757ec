"""The magnitude that a share of all numbers stays below."""

from __future__ import annotations

import numpy as np

from calib.observers.histogram import Histogram

SHARE = 0.9999


class Percentile(Histogram):
    """Clips the largest 0.01 % of the numbers."""

    share = SHARE

    def largest(self, levels: int) -> float:
        """Upper edge of the bin in which the share is reached; the same for any number of steps."""
        counts = self.counts
        if not counts.any() or self.maximum == 0.0:
            return 0.0
        reached = np.searchsorted(np.cumsum(counts), self.share * counts.sum())
        return min((int(reached) + 1) * self.width, self.maximum)
