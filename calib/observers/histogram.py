"""A histogram of magnitudes with a growing range, and the ranges chosen from it."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Self

import numpy as np

from calib.observers.observer import Json, checked_float32
from model.arrays import Float32, Float64, Int64

BINS = 8192
_CHUNK = 1 << 20  # values binned at a time, to bound the memory of their indices
# `Percentile` covers this fraction of the values.
_FRACTION = 0.9999
# Candidate ranges of `Mse`, as fractions of the largest magnitude.
_FRACTIONS = np.arange(1.0, 0.04, -0.01)
# Bins that `Entropy` searches, and number of candidate ranges.
_COARSE_BINS, _CANDIDATES = 2048, 128


class Histogram:
    """Counts of |x| in bins of equal width from 0 to a power of two.

    For a larger magnitude the range doubles and neighboring bins are merged, so the counts are
    exact and independent of the order of photos. At least half of the bins are in use.
    """

    def __init__(self) -> None:
        self._exponent: int | None = None
        self._counts = np.zeros(BINS, np.int64)
        self._largest = 0.0

    def observe(self, values: Float32) -> None:
        """Count magnitudes."""
        if not values.size:
            return
        magnitudes = np.abs(values).reshape(-1)
        largest = float(magnitudes.max())
        self._grow(largest)
        scale = np.float32(BINS / self.limit)
        for start in range(0, magnitudes.size, _CHUNK):
            # A power of two, so the product and the bin edges are exact.
            index = (magnitudes[start : start + _CHUNK] * scale).astype(np.int32)
            self._counts += np.bincount(np.minimum(index, BINS - 1), minlength=BINS)

    @property
    def limit(self) -> float:
        """Upper edge of the last bin."""
        return 1.0 if self._exponent is None else math.ldexp(1.0, self._exponent)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.limit / BINS

    @property
    def maximum(self) -> float:
        """The largest magnitude observed."""
        return self._largest

    @property
    def counts(self) -> Int64:
        """int64 [bins], from zero to the bin of the largest magnitude."""
        if self._largest == 0.0:
            return self._counts[:1]
        last = min(int(self._largest / self.width), BINS - 1)
        return self._counts[: last + 1]

    @property
    def total(self) -> int:
        """Number of values counted."""
        return sum(self._counts.tolist())  # Python integers: counts from a file cannot wrap

    @property
    def centers(self) -> Float64:
        """float64 [bins], of `counts`."""
        return np.arange(0.5, len(self.counts), dtype=np.float64) * self.width

    def _grow(self, largest: float) -> None:
        self._largest = max(self._largest, largest)
        if largest == 0.0:
            return
        # frexp: largest = fraction * 2**exponent with a fraction below 1.
        needed = max(math.frexp(largest)[1], -100)
        if self._exponent is None:
            self._exponent = needed
            return
        while self._exponent < needed:
            half = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([half, np.zeros(BINS // 2, np.int64)])
            self._exponent += 1

    def state(self) -> Json:
        """The range and the counts, compressed."""
        packed = base64.b85encode(zlib.compress(self.counts.astype("<i8").tobytes(), 6))
        return {"exponent": self._exponent, "largest": self._largest, "counts": packed.decode()}

    @classmethod
    def restore(cls, state: Json) -> Self:
        """The inverse of `state`. The range and the last bin follow from the largest magnitude."""
        observer = cls()
        observer._grow(checked_float32(state["largest"]))
        exponent = state["exponent"]
        if isinstance(exponent, bool) or exponent != observer._exponent:
            raise ValueError(f"exponent {exponent!r}, expected {observer._exponent}")
        counts = _unpacked(state["counts"])
        if len(counts) != len(observer.counts) or (counts < 0).any():
            raise ValueError("counts do not match the range")
        if observer._largest > 0.0 and counts[-1] == 0:
            raise ValueError(f"no count at the largest magnitude {observer._largest}")
        observer._counts[: len(counts)] = counts
        return observer


def _unpacked(text: object) -> Int64:
    """The counts that `Histogram.state` compressed; the decompressed size is limited."""
    stream = zlib.decompressobj()
    data = stream.decompress(base64.b85decode(text), 8 * BINS)  # type: ignore[arg-type]
    if not stream.eof:
        raise ValueError(f"more than {BINS} counts")
    return np.frombuffer(data, "<i8").astype(np.int64)


class Percentile(Histogram):
    """Clips the largest 0.01 % of the values."""

    def largest(self, levels: int) -> float:
        """Upper edge of the bin that reaches the fraction; the same for any number of levels."""
        counts = self.counts
        if not counts.any() or self.maximum == 0.0:
            return 0.0
        last = np.searchsorted(np.cumsum(counts), _FRACTION * counts.sum())
        return min((int(last) + 1) * self.width, self.maximum)


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
        """At most `_COARSE_BINS` bins, by merging neighbors, and their width."""
        counts = self.counts.astype(np.float64)
        # Exact zeros, of ReLUs and of padding, carry no information about the range.
        counts[0] = counts[1] if len(counts) > 1 else counts[0]
        merge = -(-len(counts) // _COARSE_BINS)
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
