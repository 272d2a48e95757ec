"""Show what layers read on a few photos to those who learn from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from calib.calibration.activations import Activations
from calib.calibration.photos import Skipped, canvases, require_enough
from calib.graph.layers import Layer
from model.arrays import Float32
from runtime.artifacts.metadata import Artifact

# Every photo has thousands of places to average over; ranges, which hang on single numbers, take
# all photos.
PHOTOS = 24


class InputReader(Protocol):
    """Learns from what one layer reads, or several that share weights."""

    def observe(self, data: Float32) -> None:
        """Take what the layer reads of a batch, float32 [rows, C, …]; there may be no row."""


def show_inputs(
    readers: Iterable[tuple[Layer, InputReader]],
    model: ir.Model,
    artifact: Artifact,
    photos: Sequence[Path],
    skipped: Skipped,
    advance: Callable[[int], None],
    threads: int | None = None,
) -> None:
    """Run photos through the graph in floating point, and let each reader see its layer's input.

    Args:
        readers: layers of the graph, and who is to learn from them.
        model: left as it is.
        artifact: its spec and manifest.
        photos: usable ones; the first `PHOTOS` are taken.
        skipped: gets those that cannot be read any more.
        advance: called with the number of photos done, those that were skipped at the end.
        threads: of the CPU; None takes all cores.

    Raises:
        UsageError: none of the photos can be read any more.
        ArtifactError: ONNX Runtime failed.
    """
    of_tensor: dict[str, list[InputReader]] = {}
    for layer, reader in readers:
        of_tensor.setdefault(str(layer.data.name), []).append(reader)
    activations = Activations(model, list(of_tensor), threads)
    chosen, shown = photos[:PHOTOS], 0
    for paths, canvas in canvases(chosen, artifact, skipped):
        for name, data in activations.run(canvas):
            for reader in of_tensor[name]:
                reader.observe(data)
        advance(len(paths))
        shown += len(paths)
    advance(len(chosen) - shown)
    if not shown:
        # Nothing would be learned, and the file would say that it was.
        require_enough(0, skipped)
