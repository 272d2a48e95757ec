"""Near ties that explain a keypoint that differs although score and box of its row agree.

A keypoint is the largest pixel of a heat map that is resized to its box, so three decisions can
move it: two pixels of the map that are nearly equal, a side of the box that is nearly an integer
(the map is resized to the side rounded up), and the pyramid level of the keypoint RoI. The first
two are accepted only where the candidate's keypoint is a peak of the reference's map, within noise.

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
from runtime.compare.borderline import NearTie, edge_noise
from runtime.compare.limits import Epsilons, Excess, Limits
from runtime.compare.matching import Comparison
from runtime.postprocessing.bicubic import padded, pixel_value, resize_axis
from runtime.postprocessing.keypoints import KeypointScore, peaks, softmax_score

# The candidate's box differs a little, and its keypoints with it.
_OFF_GRID_PX = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class KeypointTrace:
    """Heat maps and boxes that the reference's keypoints were decoded from, in row order.

    Attributes:
        heatmaps: float32 [D, J, S, S] logits.
        boxes: float32 [D, 4], canvas pixels.
    """

    heatmaps: NDArray[np.float32]
    boxes: NDArray[np.float32]


def keypoint_near_tie(
    excess: Excess,
    comparison: Comparison,
    spec: ModelSpec,
    trace: KeypointTrace | None,
    canvas_scale_xy: tuple[float, float],
    level: NearTie | None,
    limits: Limits,
) -> NearTie | None:
    """The near tie that explains one keypoint of a pair.

    Args:
        excess: of the keypoint.
        comparison: of the excess's image.
        spec: the eager model.
        trace: of the same run; None explains nothing.
        canvas_scale_xy: original-image pixels per canvas pixel.
        level: of the row's keypoint RoI: its two boxes are at a boundary of two levels.
        limits: its epsilons and keypoint score limit are used.
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
    near_tie = _peak_near_tie(side, limits) if excess.quantity == "keypoint_px" else None
    return near_tie or _grid_near_tie(side, spec.keypoint.score, limits) or level


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
        """Width and height of the box, at least 1, [2]."""
        sides: NDArray[np.float32] = np.maximum(self.box[0, 2:] - self.box[0, :2], np.float32(1))
        return sides

    @property
    def own_size(self) -> tuple[int, int]:
        """Pixels of the box's grid, across and down."""
        width, height = np.ceil(self.wh).astype(int).tolist()
        return width, height

    def on_grid(self, size: tuple[int, int], epsilons: Epsilons) -> _OnGrid | None:
        """The candidate's pixel on a grid; None where it is between pixels or below the peak."""
        point = self.keypoint[:2] / self.canvas_scale_xy
        pixel = (point - self.box[0, :2]) / (self.wh / size) - 0.5
        column, row = np.round(pixel).astype(int).tolist()
        is_pixel = np.abs(pixel - (column, row)).max() <= _OFF_GRID_PX
        if not (is_pixel and 0 <= column < size[0] and 0 <= row < size[1]):
            return None
        down, across = (resize_axis(len(self.heatmap), pixels) for pixels in size[::-1])
        (peak,), (index,) = peaks(self.heatmap[None], down, across)
        value = pixel_value(padded(self.heatmap[None])[0], down, across, row, column)
        eps = epsilons.keypoint_logit.value * float(np.abs(self.heatmap).max())
        if not peak - value <= eps:
            return None
        return _OnGrid(value, float(peak), eps, int(index) == row * size[0] + column)


@dataclass(frozen=True, slots=True)
class _OnGrid:
    """A pixel that is nearly the peak of its resized map, or the peak."""

    value: float
    peak: float
    epsilon: float
    is_peak: bool


def _peak_near_tie(side: _Sides, limits: Limits) -> NearTie | None:
    """On the box's own grid the candidate's pixel is another one, nearly as high."""
    pixel = side.on_grid(side.own_size, limits.epsilons)
    # For the same pixel no decision differs: the box has moved.
    if pixel is None or pixel.is_peak:
        return None
    return NearTie("keypoint peak", pixel.value, pixel.peak, pixel.epsilon, side.where)


def _grid_near_tie(side: _Sides, score: KeypointScore, limits: Limits) -> NearTie | None:
    """On a grid that the box nearly has, position and score are the candidate's."""
    eps = float(edge_noise(side.box, limits.epsilons)[0])
    sizes = itertools.product(*(_near_sizes(float(length), eps) for length in side.wh))
    for size in sizes:
        changed = [axis for axis in (0, 1) if size[axis] != side.own_size[axis]]
        pixel = side.on_grid((size[0], size[1]), limits.epsilons) if changed else None
        if pixel is None:
            continue
        peak = np.array([pixel.peak], np.float32)
        expected = peak if score == "logit" else softmax_score(side.heatmap[None], peak)
        off = abs(float(expected[0]) - float(side.keypoint[2])) / max(1.0, abs(float(expected[0])))
        if off <= limits.keypoint_score.value:
            length = float(side.wh[changed[0]])
            return NearTie("box side", length, round(length), eps, side.where)
    return None


def _near_sizes(side: float, side_eps: float) -> Iterator[int]:
    """Numbers of pixels that a side may be resized to under noise, its own first."""
    own = math.ceil(side)
    yield own
    for moved in (side - side_eps, side + side_eps):
        if math.ceil(moved) != own and moved >= 1.0:
            yield math.ceil(moved)
