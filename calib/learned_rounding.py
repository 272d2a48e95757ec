"""Rounding of weights that knows what they are multiplied with, learned from a few photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from calib.layer_inputs import show_inputs
from calib.layers import Layer
from calib.rounding import round_together
from calib.second_moments import SecondMoments
from calib.weights import LEVELS, Float32, Int8, round_to_nearest
from runtime.artifact import Artifact


class LearnedRounding:
    """A `Rounder`. A layer that it saw no input of is rounded to nearest.

    What was rounded once is kept, so that the same graph can be written for another choice of
    layers.
    """

    def __init__(self, moments: dict[str, SecondMoments]) -> None:
        self._moments = moments
        self._done: dict[tuple[str, bytes, int], Int8] = {}

    @classmethod
    def learn(
        cls,
        model: ir.Model,
        layers: Sequence[Layer],
        artifact: Artifact,
        photos: Sequence[Path],
        advance: Callable[[int], None],
        threads: int | None = None,
    ) -> LearnedRounding:
        """Run photos through the graph in floating point and look at what the layers read.

        Args:
            model: the layers' graph, left as it is.
            layers: to be rounded.
            artifact: its spec and manifest.
            photos: usable ones; the first few are taken.
            advance: called with the number of photos done.
            threads: of the CPU; None takes all cores.
        """
        moments: dict[str, SecondMoments] = {}
        readers = [
            (layer, moments.setdefault(str(layer.weight.name), SecondMoments(layer)))
            for layer in layers
            if layer.scale_axis is not None  # one scale serves all: deconvolutions
        ]
        show_inputs(readers, model, artifact, photos, advance, threads)
        return cls(moments)

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
