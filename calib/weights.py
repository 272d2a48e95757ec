"""Weights as int8: a scale per output channel, symmetric, -127 to 127."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

LEVELS = 127
# Shares of the largest magnitude that are tried as the range; 1 is first, so that ties keep it.
_SHARES = np.concatenate([[1.0], np.arange(0.98, 0.5, -0.02)])


@dataclass(frozen=True, slots=True)
class QuantisedWeights:
    """int8 weights and their scales, float32: one number, or one per entry of `axis`."""

    integers: npt.NDArray[np.int8]
    scales: Float32
    axis: int | None

    @property
    def values(self) -> Float32:
        """What the integers stand for."""
        return self.integers * _along(self.scales, self.axis, self.integers.ndim)


def quantise_weights(
    weights: Float32, axis: int | None, *, search: bool = True, least: Float32 | None = None
) -> QuantisedWeights:
    """Round weights to int8.

    Args:
        weights: of any shape.
        axis: of the output channels; None for one scale.
        search: look for the clipped range with the smallest squared error, channel by channel.
        least: smallest scale that a channel may have, where a bias must fit 32 bits.
    """
    rows = _rows(weights, axis)
    largest = np.abs(rows).max(axis=1)
    scales = largest / LEVELS
    if search:
        errors = np.stack([_squared_error(rows, scales * share) for share in _SHARES])
        scales = scales * _SHARES[errors.argmin(axis=0)]
    # A channel of zeros needs some scale; its integers are zeros whatever it is.
    scales = np.where(largest > 0, scales, 1.0 / LEVELS)
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    if least is not None:
        scales = np.maximum(scales, least)
    scales = scales.astype(np.float32)
    if axis is None:
        scales = scales.reshape(())
    steps = np.rint(weights / _along(scales, axis, weights.ndim))
    return QuantisedWeights(np.clip(steps, -LEVELS, LEVELS).astype(np.int8), scales, axis)


def _rows(weights: Float32, axis: int | None) -> npt.NDArray[np.float64]:
    """float64 [channels, the rest]."""
    wide = weights.astype(np.float64)
    if axis is None:
        return wide.reshape(1, -1)
    return np.moveaxis(wide, axis, 0).reshape(weights.shape[axis], -1)


def _squared_error(
    rows: npt.NDArray[np.float64], scales: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    step = np.where(scales > 0, scales, 1.0)[:, None]
    rounded = np.clip(np.rint(rows / step), -LEVELS, LEVELS) * step
    errors: npt.NDArray[np.float64] = np.square(rounded - rows).sum(axis=1)
    return errors


def _along(scales: Float32, axis: int | None, dimensions: int) -> Float32:
    if axis is None:
        return scales
    shape = [1] * dimensions
    shape[axis] = -1
    return scales.reshape(shape)
