"""Feed photos to the graph: to fill the table, and to collect layers' inputs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from calib.calibration.activations import Activations
from calib.calibration.photos import Photo, canvases, require_enough
from calib.calibration.table import Table
from calib.context import RunContext
from calib.graph.layers import Layer
from model.arrays import Float32
from model.errors import ArtifactError
from runtime.preprocessing.canvas import Canvas

# Seconds between two writes of the table: the most that an interrupt can cost. It is written only
# between batches, so that all tensors have observed the same photos.
_SAVE_EVERY = 5.0
# Photos of `feed_inputs`: each has thousands of positions to average over. (Ranges depend on
# single values, so they use all photos.)
PHOTOS = 24


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """Photos of one run.

    `used` were run, `resumed` were in the table already. `others` are in the table but were not
    passed now; they contribute to the ranges too.
    """

    used: int
    resumed: int
    others: int
    seconds_per_photo: float


def calibrate(
    model: ir.Model, photos: Sequence[Photo], table: Table, path: Path, context: RunContext
) -> CalibrationSummary:
    """Run the photos that are not in the table yet, saving the table on the way.

    Args:
        model: the graph, not changed.
        photos: each file once.
        table: filled.
        path: of the table.
        context: of the run.

    Raises:
        UsageError: too few usable photos.
        ArtifactError: a tensor is not finite or no photo reached it, or the table cannot be
            written.
    """
    known = set(table.photos)
    todo = [photo for photo in photos if photo.digest not in known]
    resumed = len(photos) - len(todo)
    others = len(known - {photo.digest for photo in photos})
    context.advance(resumed)
    started = saved = time.perf_counter()
    used = 0
    if todo:
        activations = Activations(model, table.names, context.threads)
    for batch, canvas in canvases(todo, context):
        _observe(activations, canvas, batch, table)
        # A file that could not be hashed has no digest.
        table.photos += [photo.digest for photo in batch if photo.digest]
        used += len(batch)
        context.advance(len(batch))
        if time.perf_counter() - saved > _SAVE_EVERY:
            table.save(path)
            saved = time.perf_counter()
    context.advance(len(todo) - used)
    require_enough(len(table.photos), context)
    if used:
        table.save(path)
    table.require_observed()
    seconds = (time.perf_counter() - started) / max(used, 1)
    return CalibrationSummary(used, resumed, others, seconds if used else 0.0)


def _observe(
    activations: Activations, canvas: Canvas, batch: Sequence[Photo], table: Table
) -> None:
    for name, values in activations.run(canvas):
        if values.size and not np.isfinite([values.max(), values.min()]).all():
            raise ArtifactError(
                f"calibration: tensor '{name}' has NaN or Inf on {batch[0].path}; the weights or "
                "the photo overflow there, and no range would be valid"
            )
        table.observe(name, values)


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
