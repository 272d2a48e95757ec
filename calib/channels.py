"""Each channel's largest magnitude, which equalisation goes by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.activations import Activations
from calib.layers import weighted_layers
from calib.learned_rounding import PHOTOS
from calib.photos import Skipped, canvases
from runtime.artifact import Artifact

Float32 = npt.NDArray[np.float32]


def channel_magnitudes(
    model: ir.Model, artifact: Artifact, photos: Sequence[Path], threads: int | None
) -> dict[str, Float32]:
    """float32 [C] of every tensor that a hidden layer reads or answers.

    Args:
        model: the float graph, left as it is.
        artifact: its spec and manifest.
        photos: the first few are looked at.
        threads: of the CPU; None takes all cores.
    """
    layers = [layer for layer in weighted_layers(model.graph) if not layer.is_predictor]
    names = {str(v.name): None for layer in layers for v in (layer.data, layer.output)}
    found: dict[str, Float32] = {}
    activations = Activations(model, list(names), threads)
    for _, canvas in canvases(photos[:PHOTOS], artifact, Skipped()):
        for name, values in activations.run(canvas):
            if values.size:
                others = tuple(axis for axis in range(values.ndim) if axis != 1)
                largest = np.abs(values).max(axis=others)
                found[name] = np.maximum(found.get(name, np.float32(0.0)), largest)
    return found
