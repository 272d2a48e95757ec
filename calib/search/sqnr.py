"""Signal against noise at the tensors that predictors read, quantised against float."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from calib.graph.layers import Layer
from calib.graph.presets import WHOLE_IMAGE_ROLES
from model.arrays import Float32

# Numbers kept of a tensor, evenly spaced over it.
_KEPT = 1 << 16


def taps_for(layers: Sequence[Layer], role: str) -> list[str]:
    """Names of nodes that show what a part's noise comes to, with rows that mean the same.

    Of the parts that see the whole image: the RPN's predictors, whose input is all of the pyramid.
    Of a head: its own last hidden layer, since its proposals are those of the float graph as long
    as nothing before it is quantised.
    """
    if role in WHOLE_IMAGE_ROLES:
        return [str(one.node.name) for one in layers if one.is_predictor and one.role == "rpn"]
    own = [one for one in layers if one.role == role]
    return [str(own[-1].node.name)] if own else []


def tensor_at(model: ir.Model, nodes: Iterable[str]) -> dict[str, str]:
    """The tensors that those nodes answer, by node, in one copy of the graph."""
    wanted = set(nodes)
    return {
        str(node.name): str(node.outputs[0].name) for node in model.graph if node.name in wanted
    }


@dataclass(slots=True)
class Recorder:
    """Keeps an even sample of every tensor that it is shown, in the order of the runs."""

    kept: dict[str, list[Float32]] = field(default_factory=dict)

    def see(self, node: str, values: Float32) -> None:
        """Take a sample; the same places for the same shape."""
        flat = values.reshape(-1)
        step = max(len(flat) // _KEPT, 1)
        self.kept.setdefault(node, []).append(flat[::step].copy())


def sqnr_db(reference: Recorder, noisy: Recorder, nodes: Sequence[str]) -> float | None:
    """10 log10 of signal power over noise power, over all of the nodes together.

    Runs in which a tensor's shape differs are left out: their rows do not mean the same. None
    when nothing is left; infinity when there is no noise.
    """
    signal = noise = 0.0
    for node in nodes:
        pairs = zip(reference.kept.get(node, ()), noisy.kept.get(node, ()), strict=True)
        for true, other in pairs:
            if len(true) != len(other):
                continue
            signal += float(np.square(true, dtype=np.float64).sum())
            noise += float(np.square(true - other, dtype=np.float64).sum())
    if signal == 0.0:
        return None
    return math.inf if noise == 0.0 else 10.0 * math.log10(signal / noise)
