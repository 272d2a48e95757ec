"""The range with the smallest Kullback-Leibler divergence between values and their codes."""

from __future__ import annotations

import numpy as np

from calib.observers.histogram import Histogram
from model.arrays import Float64

# Bins of the histogram that is searched, and number of candidate ranges.
_BINS, _CANDIDATES = 2048, 128


class Entropy(Histogram):
    """Compares the histogram, its tail folded into the last bin, with the quantized histogram.

    Source: Migacz, 8-bit Inference with TensorRT, GTC 2017; ONNX Runtime `EntropyCalibrater`.
    """

    def largest(self, levels: int) -> float:
        """The candidate with the smallest divergence; the narrowest among equals."""
        if self.maximum == 0.0:
            return 0.0
        counts, width = self._coarse()
        steps = levels + 1
        if len(counts) <= steps:
            return self.maximum
        ends = np.unique(np.linspace(steps, len(counts), _CANDIDATES).astype(int))
        divergences = [_divergence(counts, int(end), steps) for end in ends]
        best = int(ends[int(np.argmin(divergences))])
        return min(best * width, self.maximum)

    def _coarse(self) -> tuple[Float64, float]:
        """At most `_BINS` bins, by merging neighbors, and their width."""
        counts = self.counts.astype(np.float64)
        # Exact zeros, of ReLUs and of padding, carry no information about the range.
        counts[0] = counts[1] if len(counts) > 1 else counts[0]
        merge = -(-len(counts) // _BINS)
        padded = np.pad(counts, (0, -len(counts) % merge))
        return padded.reshape(-1, merge).sum(axis=1), self.width * merge


def _divergence(counts: Float64, end: int, steps: int) -> float:
    """Of the first `end` bins, the tail folded into the last, quantized to `steps` steps."""
    inside = counts[:end]
    reference = inside.copy()
    reference[-1] += counts[end:].sum()
    step = np.arange(end) * steps // end
    used = inside > 0
    totals = np.bincount(step, inside, steps)
    occupied = np.bincount(step, used, steps)
    coded = np.where(used, (totals / np.maximum(occupied, 1))[step], 0.0)
    return _kl(reference, coded)


def _kl(reference: Float64, coded: Float64) -> float:
    """Divergence of two histograms, smoothed to distributions without zeros."""
    p, q = _smooth(reference), _smooth(coded)
    return float((p * np.log(p / q)).sum())


def _smooth(histogram: Float64, floor: float = 1e-4) -> Float64:
    """Zeros become `floor`; the other bins give up what that adds, in equal parts."""
    total = histogram.sum()
    if total == 0.0:
        return np.full_like(histogram, 1.0 / len(histogram))
    empty = histogram == 0
    reduction = floor * empty.sum() / max((~empty).sum(), 1)
    smoothed = np.where(empty, floor, np.maximum(histogram - reduction, floor))
    distribution: Float64 = smoothed / smoothed.sum()
    return distribution
