"""Each channel's largest magnitude, which equalisation goes by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.calibration.activations import Activations
from calib.calibration.layer_inputs import PHOTOS
from calib.calibration.photos import Skipped, canvases, require_enough
from calib.graph.layers import weighted_layers
from runtime.artifacts.metadata import Artifact

Float32 = npt.NDArray[np.float32]


def channel_magnitudes(
    model: ir.Model, artifact: Artifact, photos: Sequence[Path], threads: int | None
) -> dict[str, Float32]:
    """float32 [C] of every tensor that a hidden layer reads or answers.

    Args:
        model: the float graph, left as it is.
        artifact: its spec and manifest.
        photos: each once; the first few that can be used are looked at.
        threads: of the CPU; None takes all cores.

    Raises:
        UsageError: none can be used.
        ArtifactError: ONNX Runtime failed.
    """
    layers = [layer for layer in weighted_layers(model.graph) if not layer.is_predictor]
    names = {str(v.name): None for layer in layers for v in (layer.data, layer.output)}
    found: dict[str, Float32] = {}
    activations = Activations(model, list(names), threads)
    skipped, looked_at = Skipped(), 0
    for paths, canvas in canvases(photos, artifact, skipped):
        for name, values in activations.run(canvas):
            if values.size:
                others = tuple(axis for axis in range(values.ndim) if axis != 1)
                largest = np.abs(values).max(axis=others)
                found[name] = np.maximum(found.get(name, np.float32(0.0)), largest)
        looked_at += len(paths)
        if looked_at >= PHOTOS:
            break
    if not looked_at:
        # Nothing would be rescaled, and the options would say that it was.
        require_enough(0, skipped)
    return found
