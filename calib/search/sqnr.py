"""Signal-to-quantization-noise ratio at the tensors that predictors read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calib.graph.layers import Layer
from calib.graph.presets import WHOLE_IMAGE_ROLES
from model.arrays import Float32

# Values sampled from a tensor, evenly spaced.
_SAMPLES = 1 << 16


def taps_for(layers: Sequence[Layer], role: str) -> list[str]:
    """Names of layers whose outputs show a part's noise, row by row.

    For the parts that run on the whole image: the RPN's predictors, which depend on the whole
    pyramid. For a head: its last layer; the proposals are those of the float graph as long as
    nothing before the head is quantized.
    """
    if role in WHOLE_IMAGE_ROLES:
        return [one.name for one in layers if one.is_predictor and one.role == "rpn"]
    own = [one.name for one in layers if one.role == role]
    return own[-1:]


@dataclass(slots=True)
class Recorder:
    """Samples of tensors by layer, in the order of the runs."""

    samples: dict[str, list[Float32]] = field(default_factory=dict)

    def record(self, layer: str, values: Float32) -> None:
        """Take a sample, at the same positions for the same shape."""
        flat = values.reshape(-1)
        step = max(len(flat) // _SAMPLES, 1)
        self.samples.setdefault(layer, []).append(flat[::step].copy())


def sqnr_db(reference: Recorder, quantized: Recorder, layers: Sequence[str]) -> float | None:
    """10 log10 of signal power over noise power, over all of the layers together.

    Runs in which a tensor's shape differs are left out: their rows do not correspond. None without
    any run; infinity without noise.
    """
    signal = noise = 0.0
    for layer in layers:
        pairs = zip(reference.samples.get(layer, ()), quantized.samples.get(layer, ()), strict=True)
        for exact, other in pairs:
            if len(exact) != len(other):
                continue
            signal += float(np.square(exact, dtype=np.float64).sum())
            noise += float(np.square(exact - other, dtype=np.float64).sum())
    if signal == 0.0:
        return None
    return math.inf if noise == 0.0 else 10.0 * math.log10(signal / noise)
