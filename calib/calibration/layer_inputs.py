"""Feed layers' inputs on a few photos to their readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import onnx_ir as ir

from calib.calibration.activations import Activations
from calib.calibration.photos import Photo, canvases, require_enough
from calib.context import RunContext
from calib.graph.layers import Layer
from model.arrays import Float32

# Each photo has thousands of positions to average over. (Ranges depend on single values, so they
# use all photos.)
PHOTOS = 24


class InputReader(Protocol):
    """Collects statistics of the inputs of one layer, or of several that share weights."""

    def observe(self, data: Float32) -> None:
        """Add the layer's input on a batch, float32 [rows, C, …]; there may be no row."""


def feed_inputs(
    readers: Iterable[tuple[Layer, InputReader]],
    model: ir.Model,
    photos: Sequence[Photo],
    context: RunContext,
) -> None:
    """Run the first `PHOTOS` photos through the graph in floating point.

    Args:
        readers: layers of the graph, and the readers of their inputs.
        model: not changed.
        photos: usable ones.
        context: of the run.

    Raises:
        UsageError: none of the photos can be read any more.
        ArtifactError: ONNX Runtime failed.
    """
    of_tensor: dict[str, list[InputReader]] = {}
    for layer, reader in readers:
        of_tensor.setdefault(str(layer.data.name), []).append(reader)
    activations = Activations(model, list(of_tensor), context.threads)
    first, done = photos[:PHOTOS], 0
    for batch, canvas in canvases(first, context):
        for name, data in activations.run(canvas):
            for reader in of_tensor[name]:
                reader.observe(data)
        context.advance(len(batch))
        done += len(batch)
    context.advance(len(first) - done)
    if not done:
        # Without any input, GPTQ would silently become rounding to nearest.
        require_enough(0, context)
