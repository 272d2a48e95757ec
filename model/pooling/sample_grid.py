"""Positions of a RoI's samples on the packed canvas, the same formulas for every static form.

Legend: N images, R RoIs per image, P bins per side, S samples of a RoI, x before y throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.pooling.arithmetic import Arithmetic, Array, Numbers
from model.pooling.frame import cells_per_pixel, in_cells
from model.pooling.joint import joint_samples
from model.pooling.packing import Packing
from model.pooling.plan import SamplePlan
from model.pooling.steps import axis_steps, margins, step_count
from model.spec import PoolerSpec

# Outside [-1, 1] by more than a cell of any canvas: GridSample's zero padding returns 0 there.
_OUTSIDE = 4.0


@dataclass(frozen=True, slots=True)
class SampleGrid:
    """Sample positions and weights.

    Attributes:
        grid: float32 [N, R, S, 2] or [N, R, P * P, B, 2], -1 to 1 over the canvas.
        weight: float32 [N, R, P * P, B], or None if all samples have equal weights.
        factor: float32 [N, R, 1, 1], which turns a bin's sum into its average, or None.
        cut: bool [N, R, 1, 1], RoIs that got fewer samples than they need, or None.
    """

    grid: Array
    weight: Array | None = None
    factor: Array | None = None
    cut: Array | None = None


def sample_grid(
    xp: Arithmetic, rois: Array, valid: Array, row: Array, spec: PoolerSpec, plan: SamplePlan
) -> SampleGrid:
    """Position the samples of every RoI.

    1. Compute corner, sides and samples in cells of the RoI's level.
    2. By the pooler's own rule, samples outside the level count 0. This comes before the level's
       offset on the canvas is added; otherwise thin boxes at the border would read a neighbor.
    3. Clamp the other samples to the level, so that none reads the tile of another level.
    4. Convert to positions on the canvas.

    Args:
        xp: the arithmetic of the arrays.
        rois: float32 [N, R, 4] xyxy, canvas pixels.
        valid: bool [N, R]; rows that are False have no samples, whatever their coordinates.
        row: float32 [N, R, 1, 8], each RoI's row of `Packing.level_table`.
        spec: of the pooler.
        plan: the layout of its samples.
    """
    scale, side, slope, shift = xp.split(row, 4, 3)  # [N, R, 1, 2] each
    low, high = xp.split(xp.unsqueeze(rois, 2), 2, 3)
    start, sides = in_cells(xp, low, high, scale, spec)
    if not plan.budget:
        samples = start + sides / float(step_count(spec)) * xp.numbers(_steps(spec))
        before, after = margins(spec)
        outside = xp.either(samples < -before, samples > side + (after - 1.0))
        absent = xp.either(outside, xp.invert(xp.unsqueeze(valid, 2, 3)))
        return SampleGrid(_on_canvas(xp, samples, absent, side, slope, shift))
    by_bin = [xp.unsqueeze(part, 3) for part in (start, sides, side, slope, shift)]
    start, sides, side, slope, shift = by_bin  # [N, R, 1, 1, 2]
    joint = joint_samples(xp, start, sides, side, spec, plan)
    is_valid = xp.unsqueeze(valid, 2, 3)  # [N, R, 1, 1]
    absent = xp.either(joint.absent, xp.invert(xp.unsqueeze(is_valid, 4)))
    return SampleGrid(
        _on_canvas(xp, joint.samples, absent, side, slope, shift),
        None if joint.weight is None else xp.where(is_valid, joint.weight, 0.0),
        None if joint.factor is None else xp.where(is_valid, joint.factor, 0.0),
        xp.both(joint.cut, is_valid),
    )


def level_rows(packing: Packing, spec: PoolerSpec) -> NDArray[np.float32]:
    """`Packing.level_table` [L, 8] for a pooler."""
    strides = spec.strides[: len(packing.sides_hw)]
    scales = [
        cells_per_pixel(spec, stride, side_hw)
        for stride, side_hw in zip(strides, packing.sides_hw, strict=True)
    ]
    return packing.level_table(scales)


def _on_canvas(
    xp: Arithmetic, samples: Array, absent: Array, side: Array, slope: Array, shift: Array
) -> Array:
    inside = xp.minimum(xp.maximum(samples, 0.0), side - 1.0)
    return xp.where(absent, _OUTSIDE, inside * slope + shift)


def _steps(spec: PoolerSpec) -> Numbers:
    """[S, 2]: each sample's position in the RoI, x varying fastest."""
    steps = axis_steps(spec)
    return [[x, y] for y in steps for x in steps]
