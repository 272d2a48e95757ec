"""Show photos to the graph and fill the table, photo by photo."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from calib.calibration.activations import Activations
from calib.calibration.photos import Skipped, canvases, digest, require_enough
from calib.calibration.table import Table
from model.errors import ArtifactError
from runtime.artifacts.metadata import Artifact
from runtime.preprocessing.canvas import Canvas

# Seconds between two writings of the table, which is what an interrupt can cost. It is never
# written within a photo: some tensors would have seen it and others not.
_SAVE_EVERY = 5.0

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """What one run saw.

    `used` photos were run, `resumed` of those given were in the table, and so were `others` that
    were not given now: their numbers are part of the ranges all the same.
    """

    used: int
    resumed: int
    others: int
    seconds_per_photo: float


def calibrate(
    model: ir.Model,
    artifact: Artifact,
    photos: Sequence[Path],
    table: Table,
    path: Path,
    skipped: Skipped,
    advance: Advance,
    threads: int | None = None,
) -> CalibrationRun:
    """Fill a table with photos that it has not seen yet, writing it down on the way.

    Args:
        model: the graph, left as it is.
        artifact: its spec and manifest.
        photos: files; those that the table has seen are passed over.
        table: filled.
        path: where it is written.
        skipped: filled with the photos that could not be used.
        advance: called with the number of photos done.
        threads: of the CPU; None takes all cores.

    Raises:
        UsageError: too few usable photos.
        ArtifactError: a tensor that is not finite or that no photo reached, or a table that cannot
            be written.
    """
    todo = _unseen(photos, table.photos)
    resumed = len(photos) - len(todo)
    others = len(set(table.photos) - {digest(photo) for photo in photos})
    advance(resumed)
    started = saved = time.perf_counter()
    used = 0
    if todo:
        activations = Activations(model, table.names, threads)
    for paths, canvas in canvases(todo, artifact, skipped):
        _observe(activations, canvas, paths, table)
        # A photo that went away meanwhile has no digest.
        table.photos += [name for name in map(digest, paths) if name]
        used += len(paths)
        advance(len(paths))
        if time.perf_counter() - saved > _SAVE_EVERY:
            table.save(path)
            saved = time.perf_counter()
    advance(len(todo) - used)
    require_enough(len(table.photos), skipped)
    if used:
        table.save(path)
    table.require_seen()
    seconds = (time.perf_counter() - started) / max(used, 1)
    return CalibrationRun(used, resumed, others, seconds if used else 0.0)


def without_copies(photos: Sequence[Path], skipped: Skipped) -> list[Path]:
    """Photos of one content once; a copy says nothing new, and is named.

    A path that is given twice is no copy.
    """
    first: dict[str, Path] = {}
    found = []
    for photo in dict.fromkeys(photos):
        name = digest(photo)
        if name and name in first:
            skipped.add(photo, f"{photo}: the same file as {first[name]}")
            continue
        first[name] = photo
        found.append(photo)
    return found


def _unseen(photos: Sequence[Path], seen: Sequence[str]) -> list[Path]:
    """Photos that the table has not seen; files without a digest, to be named, are among them."""
    known = set(seen) - {""}
    return [photo for photo in photos if digest(photo) not in known]


def _observe(activations: Activations, canvas: Canvas, paths: Sequence[Path], table: Table) -> None:
    """One batch. A table in which only some tensors saw it is not written down."""
    for name, values in activations.run(canvas):
        if values.size and not np.isfinite([values.max(), values.min()]).all():
            raise ArtifactError(
                f"calibration: tensor '{name}' holds NaN or Inf on {paths[0]}; the weights or the "
                "photo overflow there, and no range would be true"
            )
        table.observe(name, values)
