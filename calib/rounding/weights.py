"""Weights in 8 bits: symmetric, with a scale per output channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calib.graph.formats import Format, scales_in_dtype_of
from calib.graph.layers import Layer
from calib.rounding.gptq import InputHessian, gptq
from model.arrays import Float32, Float64

Codes = npt.NDArray[Any]

_INT8_LEVELS = 127
# Fractions of the largest magnitude that are tried as the range; 1 is first, so that ties keep it.
_CLIP_FRACTIONS = np.concatenate([[1.0], np.arange(0.98, 0.5, -0.02)])


@dataclass(frozen=True, slots=True)
class QuantizedWeights:
    """Codes of weights and their scales, float32: one number, or one per entry of `axis`."""

    codes: Codes
    scales: Float32
    axis: int | None


class WeightQuantizer:
    """Rounds weights to the nearest code, or by GPTQ where it has their inputs' Hessian.

    GPTQ codes are cached: the same graph is written for several choices of layers.

    Args:
        gptq_layers: to be rounded by GPTQ. Deconvolutions, whose kernels overlap, are left out.

    Attributes:
        readers: the layers and the Hessians that need their inputs before the first call; see
            `calib.calibration.run.feed_inputs`.
    """

    def __init__(self, gptq_layers: Sequence[Layer] = ()) -> None:
        self._hessians: dict[str, InputHessian] = {}
        self._cache: dict[tuple[str, bytes, int], Codes] = {}
        self.readers = [
            (layer, self._hessians.setdefault(str(layer.weight.name), InputHessian(layer)))
            for layer in gptq_layers
            if layer.scale_axis is not None
        ]

    def quantize(
        self, layer: Layer, fmt: Format, smallest_scale: Float32 | None = None
    ) -> QuantizedWeights:
        """Choose scales, in the weights' own dtype, and codes that fit them.

        Args:
            layer: of any copy of the graph.
            fmt: int8 or FP8; floats are rounded to nearest.
            smallest_scale: per channel, where a bias must fit 32 bits.
        """
        if fmt.is_integer:
            wide = weight_scales(
                layer.weights, layer.scale_axis, smallest=smallest_scale, levels=fmt.weight_levels
            )
        else:  # a float has the same relative error everywhere, so clipping gains nothing
            wide = weight_scales(layer.weights, layer.scale_axis, search=False)
            wide = wide * np.float32(_INT8_LEVELS / fmt.weight_levels)
        scales = scales_in_dtype_of(layer.weight, wide).astype(np.float32)
        codes = self._gptq(layer, scales, fmt) if fmt.is_integer else None
        if codes is None:
            codes = nearest_codes(layer, scales, fmt)
        return QuantizedWeights(codes, scales, layer.scale_axis)

    def _gptq(self, layer: Layer, scales: Float32, fmt: Format) -> Codes | None:
        """Codes of the layer's shape; None for a layer without a Hessian."""
        hessian = self._hessians.get(str(layer.weight.name))
        if hessian is None:
            return None
        key = str(layer.weight.name), scales.tobytes(), fmt.weight_levels
        if key not in self._cache:
            # Where no input was observed the codes stay those of rounding to nearest.
            weights = layer.rows()
            codes = np.array(layer.rows(nearest_codes(layer, scales, fmt)))
            per_group = scales.reshape(weights.shape[:2])
            for group, columns, mean in hessian.blocks():
                block = weights[group][:, columns]
                codes[group][:, columns] = gptq(block, per_group[group], mean, fmt.weight_levels)
            self._cache[key] = layer.from_rows(codes)
        return self._cache[key]


def weight_scales(
    weights: Float32,
    axis: int | None,
    *,
    search: bool = True,
    smallest: Float32 | None = None,
    levels: int = _INT8_LEVELS,
) -> Float32:
    """The int8 scale of every output channel, float32.

    Args:
        weights: of any shape.
        axis: of the output channels; None for one scale, a scalar array.
        search: take the clipped range with the smallest squared error, channel by channel.
        smallest: lower bound of each scale.
        levels: magnitude of the largest code.
    """
    rows = _rows(weights, axis)
    largest = np.abs(rows).max(axis=1)
    scales = largest / levels
    if search:
        errors = np.stack([_squared_error(rows, scales * f, levels) for f in _CLIP_FRACTIONS])
        scales = scales * _CLIP_FRACTIONS[errors.argmin(axis=0)]
    # A channel of zeros has codes of zero whatever the scale.
    scales = np.where(largest > 0, scales, 1.0 / levels)
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    if smallest is not None:
        scales = np.maximum(scales, smallest)
    result: Float32 = scales.astype(np.float32)
    return result.reshape(()) if axis is None else result


def nearest_codes(layer: Layer, scales: Float32, fmt: Format) -> Codes:
    """Every weight to the nearest code."""
    return fmt.weight_codes(layer.weights / along(scales, layer.scale_axis, layer.weights.ndim))


def along(scales: Float32, axis: int | None, dimensions: int) -> Float32:
    """Scales in a shape that broadcasts over weights of that many dimensions."""
    if axis is None:
        return scales
    shape = [1] * dimensions
    shape[axis] = -1
    return scales.reshape(shape)


def _rows(weights: Float32, axis: int | None) -> Float64:
    """float64 [channels, weights of a channel]."""
    wide = weights.astype(np.float64)
    if axis is None:
        return wide.reshape(1, -1)
    return np.moveaxis(wide, axis, 0).reshape(weights.shape[axis], -1)


def _squared_error(rows: Float64, scales: Float64, levels: int) -> Float64:
    step = np.where(scales > 0, scales, 1.0)[:, None]
    rounded = np.clip(np.rint(rows / step), -levels, levels) * step
    errors: Float64 = np.square(rounded - rows).sum(axis=1)
    return errors
