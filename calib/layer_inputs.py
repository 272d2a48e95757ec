"""Show what layers read on a few photos to those who learn from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.activations import Activations
from calib.layers import Layer
from calib.photos import Skipped, canvases
from runtime.artifact import Artifact

Float32 = npt.NDArray[np.float32]

# Means, products and largest values of channels are steady after a few photos; ranges, which hang
# on the largest value of all, are not.
PHOTOS = 24


class InputReader(Protocol):
    """Learns from what one layer reads, or several that share weights."""

    def observe(self, data: Float32) -> None:
        """Take what the layer reads of a photo, float32 [N, C, …]."""


def show_inputs(
    readers: Iterable[tuple[Layer, InputReader]],
    model: ir.Model,
    artifact: Artifact,
    photos: Sequence[Path],
    advance: Callable[[int], None],
    threads: int | None = None,
) -> None:
    """Run photos through the graph in floating point, and let each reader see its layer's input.

    Args:
        readers: layers of the graph, and who is to learn from them.
        model: left as it is.
        artifact: its spec and manifest.
        photos: usable ones; the first `PHOTOS` are taken.
        advance: called with the number of photos done.
        threads: of the CPU; None takes all cores.

    Raises:
        ArtifactError: ONNX Runtime failed.
    """
    of_tensor: dict[str, list[InputReader]] = {}
    for layer, reader in readers:
        of_tensor.setdefault(str(layer.data.name), []).append(reader)
    activations = Activations(model, list(of_tensor), threads)
    for paths, canvas in canvases(photos[:PHOTOS], artifact, Skipped()):
        for name, data in activations.run(canvas):
            for reader in of_tensor[name]:
                reader.observe(data)
        advance(len(paths))
