"""Rounding of weights that knows what they are multiplied with, learned from a few photos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calib.graph.layers import Layer
from calib.rounding.gptq import round_together
from calib.rounding.hessian import SecondMoments
from calib.rounding.weights import LEVELS, round_to_nearest
from model.arrays import Float32, Int8


class LearnedRounding:
    """A `Rounder`, by what its readers see. A layer of which they saw nothing goes to nearest.

    What was rounded once is kept, so that the same graph can be written for another choice of
    layers.

    Args:
        layers: to be rounded.

    Attributes:
        readers: to be shown what their layers read, before the first layer is rounded; see
            `calib.calibration.layer_inputs.show_inputs`.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._moments: dict[str, SecondMoments] = {}
        self._done: dict[tuple[str, bytes, int], Int8] = {}
        self.readers = [
            (layer, self._moments.setdefault(str(layer.weight.name), SecondMoments(layer)))
            for layer in layers
            if layer.scale_axis is not None  # one scale serves all: deconvolutions
        ]

    def __call__(self, layer: Layer, scales: Float32, levels: int = LEVELS) -> Int8:
        """int8, of the shape of the layer's weights."""
        key = str(layer.weight.name), scales.tobytes(), levels
        if key not in self._done:
            self._done[key] = self._rounded(layer, scales, levels)
        return self._done[key]

    def _rounded(self, layer: Layer, scales: Float32, levels: int) -> Int8:
        nearest = round_to_nearest(layer, scales, levels)
        moments = self._moments.get(str(layer.weight.name))
        if moments is None:
            return nearest
        weights, integers = layer.rows(), np.array(layer.rows(nearest))
        per_group = scales.reshape(weights.shape[:2])
        for group, run, mean in moments.means():
            rows = weights[group][:, run]
            integers[group][:, run] = round_together(rows, per_group[group], mean, levels)
        return layer.from_rows(integers)
