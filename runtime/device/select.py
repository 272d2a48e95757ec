"""`Selection` on the device: rows are not valid in place of removed.

Legend: N frames, D rows of each.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model.spec import ModelSpec
from runtime.device.detections import ROWS, DeviceDetections
from runtime.device.library import Array, clipped
from runtime.device.workspace import Workspace
from runtime.selection import Selection


def select(found: DeviceDetections, selection: Selection, workspace: Workspace) -> DeviceDetections:
    """The rows that a selection keeps, in the order in which `Selection.apply` looks at them.

    A minimal area pastes every row of every frame; see `DeviceDetections.areas`.
    """
    if selection == Selection():
        return found
    xp, keep = workspace.library.xp, found.valid
    if selection.mask_threshold is not None:
        found = replace(found, mask_threshold=selection.mask_threshold)
    if selection.score_threshold is not None or selection.classes is not None:
        (least,) = workspace.tables(
            ("least", _key(selection)), lambda: [_least_scores(selection, found.spec)]
        )
        labels = clipped(xp, found.labels, 0, least.shape[0] - 1)
        of_rows = xp.take(least, xp.reshape(xp.astype(labels, xp.int64), (-1,)))
        keep = keep & (found.scores >= xp.reshape(of_rows, labels.shape))
    if selection.min_area_px is not None:
        keep = keep & (found.areas() >= selection.min_area_px)
    if selection.top_k is not None:
        most = min(selection.top_k, found.scores.shape[1])  # which every integer type holds
        keep = keep & (_ranks(xp, found.scores, keep) < most)
    return _only(xp, found, keep)


def _key(selection: Selection) -> Hashable:
    """What the table of scores depends on."""
    scores, classes = selection.score_threshold, selection.classes
    by_name = frozenset(scores.items()) if isinstance(scores, Mapping) else scores
    return by_name, None if classes is None else frozenset(classes)


def _least_scores(selection: Selection, spec: ModelSpec) -> npt.NDArray[np.float32]:
    """By label: the threshold, infinite for a class that is not wanted."""
    names = spec.classes.names
    least = np.full(len(names), -math.inf, np.float32)
    if selection.score_threshold is not None:
        least = selection.thresholds(names)
    if selection.classes is not None:
        wanted = set(selection.classes)
        least[[name not in wanted for name in names]] = math.inf
    return least


def _ranks(xp: Any, scores: Array, keep: Array) -> Array:
    """How many rows of a frame come before each one, int64 [N, D]; those not kept come last."""
    ranked = xp.where(keep, scores, xp.full_like(scores, -math.inf))
    order = xp.argsort(ranked, axis=1, descending=True, stable=True)
    return xp.argsort(order, axis=1)


def _only(xp: Any, found: DeviceDetections, keep: Array) -> DeviceDetections:
    """Zeros in all rows but these."""
    arrays: dict[str, Array] = {"valid": keep}
    for name in ROWS:
        values = getattr(found, name)
        if values is not None:
            where = xp.reshape(keep, (*keep.shape, *(1,) * (len(values.shape) - 2)))
            arrays[name] = xp.where(where, values, xp.zeros_like(values))
    counts = xp.sum(xp.astype(keep, xp.int32), axis=1, dtype=xp.int32)
    return replace(found, counts=counts, **arrays)
