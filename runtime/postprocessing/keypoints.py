"""Heat maps to keypoints: the peak of each map, resized to its box.

The eager models resize every heat map to its box in canvas pixels and take the argmax. Here only
the cells of the map that can hold the peak are evaluated, which is exact and, for a box that fills
the photo, a hundredth of the work.

Legend: D detections, J keypoints, S side of a heat map; boxes are xyxy in canvas pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.arrays import Float32, Int64
from model.errors import ArtifactError
from runtime.postprocessing.bicubic import (
    Axis,
    Cells,
    cell_bounds,
    cell_values,
    padded,
    resize_axis,
)

KeypointScore = Literal["logit", "softmax"]

# Pixels that are evaluated at a time, 4 MB.
_BLOCK_PIXELS = 1 << 20
# A bound and a pixel are float32 sums of a few products each.
_ROUNDING = np.float32(1e-5)
# Larger than any canvas; memory grows with a box's side.
MOST_SIDE_PX = 1 << 16
_HALF, _ONE = np.float32(0.5), np.float32(1)


@dataclass(frozen=True, slots=True, eq=False)
class Grids:
    """The pixel grid of each box.

    Attributes:
        corner: float32 [D, 2], x and y of the box's top left.
        step: float32 [D, 2], width and height of a grid pixel: just under 1.
        size: int64 [D, 2], pixels across and down.
    """

    corner: Float32
    step: Float32
    size: Int64


def decode(heatmaps: Float32, boxes_xyxy: Float32, score: KeypointScore = "logit") -> Float32:
    """Place every keypoint at the peak of its heat map.

    Args:
        heatmaps: float32 [D, J, S, S] logits, finite.
        boxes_xyxy: float32 [D, 4], canvas pixels, finite.
        score: "logit" is the peak of the resized map; "softmax" the peak's exponential divided by
            the sum over the map's positions, which is not bounded by 1.

    Returns:
        float32 [D, J, 3]: x, y in canvas pixels, score.

    Raises:
        ArtifactError: a box is larger than any canvas.

    Source: torchvision and detectron2, `heatmaps_to_keypoints`: a bicubic resize to the box's
    sides rounded up, at least 1; of equal peaks the first in row order.
    """
    grids = grids_of(boxes_xyxy)
    keypoints = np.empty((*heatmaps.shape[:2], 3), np.float32)
    for row, maps in enumerate(heatmaps):
        width, height = grids.size[row].tolist()
        peak, index = peaks(
            maps, resize_axis(maps.shape[1], height), resize_axis(maps.shape[2], width)
        )
        pixel = np.stack([index % width, index // width], axis=1).astype(np.float32)
        keypoints[row, :, :2] = (pixel + _HALF) * grids.step[row] + grids.corner[row]
        keypoints[row, :, 2] = peak if score == "logit" else softmax_score(maps, peak)
    return keypoints


def grids_of(boxes_xyxy: Float32) -> Grids:
    """The pixel grid of each box, float32 [D, 4], in the eager models' float32 arithmetic.

    Raises:
        ArtifactError: see `decode`.
    """
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], _ONE)
    if not (sides <= MOST_SIDE_PX).all():
        raise ArtifactError(
            f"network output: expected boxes of at most {MOST_SIDE_PX} canvas pixels a side, got "
            f"{float(sides.max()):g}; graph and spec do not match, export the model again"
        )
    whole = np.ceil(sides)
    return Grids(boxes_xyxy[:, :2], sides / whole, whole.astype(np.int64))


def softmax_score(maps: Float32, peak: Float32) -> Float32:
    """Softmax of each resized peak, float32 [J], over its map, float32 [J, S, S]."""
    logits = maps.reshape(len(maps), -1)
    highest = logits.max(axis=1)
    total = np.exp(logits - highest[:, None]).sum(axis=1)
    score: Float32 = np.exp(peak - highest) / total
    return score


def peaks(maps: Float32, down: Axis, across: Axis) -> tuple[Float32, Int64]:
    """The largest pixel of each resized map, float32 [J, S, S]: its value and index, [J] each.

    An index counts pixels in row order.

    1. The best pixel of the cell with the highest bound is a lower bound of the peak.
    2. Cells that cannot exceed it are skipped, the others are evaluated.
    """
    samples = padded(maps)
    bounds = cell_bounds(samples, down, across)
    cells_across = bounds.shape[2]
    likely = bounds.reshape(len(maps), -1).argmax(axis=1)
    best = Cells(np.arange(len(maps)), likely // cells_across, likely % cells_across)
    peak, _ = _best_pixels(samples, down, across, best, len(maps))
    slack = _ROUNDING * np.abs(maps).max(axis=(1, 2))
    return _best_pixels(
        samples,
        down,
        across,
        Cells(*np.nonzero(bounds >= (peak - slack)[:, None, None])),
        len(maps),
    )


def _best_pixels(
    samples: Float32, down: Axis, across: Axis, cells: Cells, planes: int
) -> tuple[Float32, Int64]:
    """The largest pixel within chosen cells, at least one of each map, and its index."""
    value = np.full(planes, -np.inf, np.float32)
    index = np.zeros(planes, np.int64)
    step = max(1, _BLOCK_PIXELS // int(down.counts.max() * across.counts.max()))
    for start in range(0, cells.plane.size, step):
        part = cells.part(slice(start, start + step))
        peak, at = _best_of_cells(samples, down, across, part)
        plane = np.concatenate((np.arange(planes), part.plane))
        value_all, index_all = np.concatenate((value, peak)), np.concatenate((index, at))
        order = np.lexsort((index_all, -value_all, plane))
        _, first = np.unique(plane[order], return_index=True)
        value, index = value_all[order[first]], index_all[order[first]]
    return value, index


def _best_of_cells(
    samples: Float32, down: Axis, across: Axis, cells: Cells
) -> tuple[Float32, Int64]:
    """The largest pixel of each cell, [N], and its index in the whole resized map."""
    values = cell_values(samples, down, across, cells)
    flat = values.reshape(len(values), -1)
    at = flat.argmax(axis=1)
    row = down.first[cells.row] + at // values.shape[2]
    column = across.first[cells.column] + at % values.shape[2]
    return flat[np.arange(len(flat)), at], row * across.cell.size + column
