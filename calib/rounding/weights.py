"""Weights in 8 bits: a scale per output channel, symmetric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calib.graph.formats import INT8, Format
from calib.graph.layers import Layer
from model.arrays import Float32, Int8

LEVELS = INT8.levels
# Shares of the largest magnitude that are tried as the range; 1 is first, so that ties keep it.
_SHARES = np.concatenate([[1.0], np.arange(0.98, 0.5, -0.02)])

# int8 of the layer's shape, given its scales and the magnitude of the largest code.
Rounder = Callable[[Layer, Float32, int], Int8]


@dataclass(frozen=True, slots=True)
class QuantisedWeights:
    """Codes of weights and their scales, float32: one number, or one per entry of `axis`."""

    codes: npt.NDArray[Any]
    scales: Float32
    axis: int | None


def weight_scales(
    weights: Float32,
    axis: int | None,
    *,
    search: bool = True,
    least: Float32 | None = None,
    levels: int = LEVELS,
) -> Float32:
    """The step of int8 of every output channel, float32.

    Args:
        weights: of any shape.
        axis: of the output channels; None for one scale, a number without dimensions.
        search: look for the clipped range with the smallest squared error, channel by channel.
        least: smallest scale that a channel may have, where a bias must fit 32 bits.
        levels: magnitude of the largest code.
    """
    rows = _rows(weights, axis)
    largest = np.abs(rows).max(axis=1)
    scales = largest / levels
    if search:
        errors = np.stack([_squared_error(rows, scales * share, levels) for share in _SHARES])
        scales = scales * _SHARES[errors.argmin(axis=0)]
    # A channel of zeros needs some scale; its integers are zeros whatever it is.
    scales = np.where(largest > 0, scales, 1.0 / levels)
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    if least is not None:
        scales = np.maximum(scales, least)
    steps: Float32 = scales.astype(np.float32)
    return steps.reshape(()) if axis is None else steps


def round_to_nearest(layer: Layer, scales: Float32, levels: int = LEVELS) -> Int8:
    """Every weight for itself."""
    integers: Int8 = nearest_codes(layer, scales, replace(INT8, weight_levels=levels))
    return integers


def nearest_codes(layer: Layer, scales: Float32, form: Format) -> npt.NDArray[Any]:
    """Every weight for itself, in any format."""
    return form.weight_codes(layer.weights / along(scales, layer.scale_axis, layer.weights.ndim))


def _rows(weights: Float32, axis: int | None) -> npt.NDArray[np.float64]:
    """float64 [channels, the rest]."""
    wide = weights.astype(np.float64)
    if axis is None:
        return wide.reshape(1, -1)
    return np.moveaxis(wide, axis, 0).reshape(weights.shape[axis], -1)


def _squared_error(
    rows: npt.NDArray[np.float64], scales: npt.NDArray[np.float64], levels: int
) -> npt.NDArray[np.float64]:
    step = np.where(scales > 0, scales, 1.0)[:, None]
    rounded = np.clip(np.rint(rows / step), -levels, levels) * step
    errors: npt.NDArray[np.float64] = np.square(rounded - rows).sum(axis=1)
    return errors


def along(scales: Float32, axis: int | None, dimensions: int) -> Float32:
    """Scales in a shape that multiplies weights of so many dimensions."""
    if axis is None:
        return scales
    shape = [1] * dimensions
    shape[axis] = -1
    return scales.reshape(shape)
