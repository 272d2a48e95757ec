"""`Selection` on the device: rows become invalid in place of removed.

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
from runtime.device.library import Array, clipped, count_rows, zero_unless
from runtime.device.workspace import Workspace
from runtime.selection import Selection


def select(
    detections: DeviceDetections, selection: Selection, workspace: Workspace
) -> DeviceDetections:
    """Apply a selection, in the order of `Selection.apply`.

    A minimum area pastes every row of every frame; see `DeviceDetections.areas`.
    """
    if selection == Selection():
        return detections
    xp, keep = workspace.library.xp, detections.valid
    if selection.mask_threshold is not None:
        detections = replace(detections, mask_threshold=selection.mask_threshold)
    if selection.score_threshold is not None or selection.classes is not None:
        (least,) = workspace.tables(
            ("score thresholds", _key(selection)),
            lambda: [_least_scores(selection, detections.spec)],
        )
        labels = clipped(xp, detections.labels, 0, least.shape[0] - 1)
        thresholds = xp.take(least, xp.reshape(xp.astype(labels, xp.int64), (-1,)))
        keep = keep & (detections.scores >= xp.reshape(thresholds, labels.shape))
    if selection.min_area_px is not None:
        keep = keep & (detections.areas() >= selection.min_area_px)
    if selection.top_k is not None:
        most = min(selection.top_k, detections.scores.shape[1])  # any top_k fits the dtype
        keep = keep & (_ranks(xp, detections.scores, keep) < most)
    return _only(xp, detections, keep)


def _key(selection: Selection) -> Hashable:
    """Cache key of the table of thresholds."""
    scores, classes = selection.score_threshold, selection.classes
    by_name = frozenset(scores.items()) if isinstance(scores, Mapping) else scores
    return by_name, None if classes is None else frozenset(classes)


def _least_scores(selection: Selection, spec: ModelSpec) -> npt.NDArray[np.float32]:
    """The threshold of each label; infinite for a class that is not selected."""
    names = spec.classes.names
    least = np.full(len(names), -math.inf, np.float32)
    if selection.score_threshold is not None:
        least = selection.thresholds(names)
    if selection.classes is not None:
        selected = set(selection.classes)
        least[[name not in selected for name in names]] = math.inf
    return least


def _ranks(xp: Any, scores: Array, keep: Array) -> Array:
    """Rank of each row in its frame by score, int64 [N, D]; rows not in `keep` come last."""
    ranked = xp.where(keep, scores, xp.full_like(scores, -math.inf))
    order = xp.argsort(ranked, axis=1, descending=True, stable=True)
    return xp.argsort(order, axis=1)


def _only(xp: Any, detections: DeviceDetections, keep: Array) -> DeviceDetections:
    """Zeros in all rows but these."""
    arrays = {
        name: zero_unless(xp, keep, values)
        for name in ROWS
        if (values := getattr(detections, name)) is not None
    }
    return replace(detections, valid=keep, counts=count_rows(xp, keep), **arrays)
