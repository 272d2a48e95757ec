"""Excuse a keypoint that lies elsewhere although score and box of its row agree.

A keypoint is the largest pixel of a heat map that was resized to its box, so three decisions can
move it: two pixels of the map that are nearly equal, a side of the box that is nearly an integer
(its pixels are as many as the side rounded up), and the pyramid level of the keypoint RoI. The
first two are accepted only where the candidate's place is itself a peak of the reference's map,
within noise.

Module legend: D detections, J keypoints, S side of a heat map; boxes are xyxy in canvas pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.spec import ModelSpec
from runtime.compare.borderline import Witness, edge_noise, level_witnesses
from runtime.compare.limits import Epsilons, Excess, Limits
from runtime.compare.matching import Comparison
from runtime.postprocessing.bicubic import padded, pixel_value, resize_axis
from runtime.postprocessing.keypoints import KeypointScore, peaks, softmax_score

# The candidate's box has moved a little, and its keypoints with it.
_OFF_GRID_PX = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class KeypointTrace:
    """What the reference's keypoints were decoded from, its rows in their order.

    Attributes:
        heatmaps: float32 [D, J, S, S] logits.
        boxes: float32 [D, 4], canvas pixels.
    """

    heatmaps: NDArray[np.float32]
    boxes: NDArray[np.float32]


def keypoint_witness(
    excess: Excess,
    comparison: Comparison,
    spec: ModelSpec,
    trace: KeypointTrace | None,
    canvas_scale_xy: tuple[float, float],
    limits: Limits,
) -> Witness | None:
    """The near decision that excuses one keypoint of a pair.

    Args:
        excess: of the keypoint.
        comparison: of the excess's image.
        spec: the eager model.
        trace: of the same run; without one nothing is excused.
        canvas_scale_xy: original-image pixels per canvas pixel.
        limits: whose epsilons apply.
    """
    if trace is None or spec.keypoint is None or comparison.candidate.keypoints is None:
        return None
    row, column = (int(index) for index in comparison.matching.pairs[excess.pair])
    side = _Sides(
        trace.heatmaps[row, excess.keypoint],
        trace.boxes[row : row + 1],
        comparison.candidate.keypoints[column, excess.keypoint],
        canvas_scale_xy,
        f"keypoint {excess.keypoint} of row {row}",
    )
    # Nearly equal peaks have nearly equal scores: they do not explain another score.
    found = _peak_witness(side, limits) if excess.quantity == "keypoint_px" else None
    found = found or _grid_witness(side, spec.keypoint.score, limits)
    levels = level_witnesses(
        side.box, spec.keypoint.pooler, limits.epsilons, "keypoint RoI of this row,"
    )
    return found or next((witness for _, witness in levels), None)


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """The reference's heat map, float32 [S, S], and box, [1, 4], and the candidate's keypoint.

    The keypoint is x and y in original-image pixels, and its score.
    """

    heatmap: NDArray[np.float32]
    box: NDArray[np.float32]
    keypoint: NDArray[np.float32]
    canvas_scale_xy: tuple[float, float]
    where: str

    @property
    def wh(self) -> NDArray[np.float32]:
        """Sides of the box as they are resized, [2]."""
        sides: NDArray[np.float32] = np.maximum(self.box[0, 2:] - self.box[0, :2], np.float32(1))
        return sides

    @property
    def own_size(self) -> tuple[int, int]:
        """Pixels of the box's grid, across and down."""
        width, height = np.ceil(self.wh).astype(int).tolist()
        return width, height

    def on_grid(self, size: tuple[int, int], epsilons: Epsilons) -> _OnGrid | None:
        """The candidate's place on a pixel grid; None where it is no pixel, or far from a peak."""
        point = self.keypoint[:2] / self.canvas_scale_xy
        pixel = (point - self.box[0, :2]) / (self.wh / size) - 0.5
        column, row = np.round(pixel).astype(int).tolist()
        is_pixel = np.abs(pixel - (column, row)).max() <= _OFF_GRID_PX
        if not (is_pixel and 0 <= column < size[0] and 0 <= row < size[1]):
            return None
        down, across = (resize_axis(len(self.heatmap), pixels) for pixels in size[::-1])
        (peak,), (place,) = peaks(self.heatmap[None], down, across)
        value = pixel_value(padded(self.heatmap[None])[0], down, across, row, column)
        eps = epsilons.keypoint_logit.value * float(np.abs(self.heatmap).max())
        if not peak - value <= eps:
            return None
        return _OnGrid(value, float(peak), eps, int(place) == row * size[0] + column)


@dataclass(frozen=True, slots=True)
class _OnGrid:
    """A pixel that is nearly the peak of its resized map, or the peak."""

    value: float
    peak: float
    epsilon: float
    is_peak: bool


def _peak_witness(side: _Sides, limits: Limits) -> Witness | None:
    """On the box's own grid the candidate took another pixel, nearly as high."""
    found = side.on_grid(side.own_size, limits.epsilons)
    # The same pixel is no other decision: then it is the box that has moved.
    if found is None or found.is_peak:
        return None
    return Witness("keypoint peak", found.value, found.peak, found.epsilon, side.where)


def _grid_witness(side: _Sides, score: KeypointScore, limits: Limits) -> Witness | None:
    """On a grid that the box nearly has, place and score are the candidate's."""
    eps = float(edge_noise(side.box, limits.epsilons)[0])
    sizes = itertools.product(*(_near_sizes(float(length), eps) for length in side.wh))
    for size in sizes:
        turned = [axis for axis in (0, 1) if size[axis] != side.own_size[axis]]
        found = side.on_grid((size[0], size[1]), limits.epsilons) if turned else None
        if found is None:
            continue
        peak = np.array([found.peak], np.float32)
        expected = peak if score == "logit" else softmax_score(side.heatmap[None], peak)
        off = abs(float(expected[0]) - float(side.keypoint[2])) / max(1.0, abs(float(expected[0])))
        if off <= limits.keypoint_score.value:
            length = float(side.wh[turned[0]])
            return Witness("box side", length, round(length), eps, side.where)
    return None


def _near_sizes(side: float, side_eps: float) -> Iterator[int]:
    """In how many pixels a side may be resized, its own number first."""
    own = math.ceil(side)
    yield own
    for moved in (side - side_eps, side + side_eps):
        if math.ceil(moved) != own and moved >= 1.0:
            yield math.ceil(moved)
