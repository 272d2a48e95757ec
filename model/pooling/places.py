"""Where the samples of a RoI stand on the packed canvas: the same formulas for every static form.

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

# Beyond [-1, 1] by more than a cell of any canvas: zero padding answers 0 there.
_NOWHERE = 4.0


@dataclass(frozen=True, slots=True)
class Places:
    """Where to sample, and what the samples count.

    Attributes:
        grid: float32 [N, R, S, 2] or [N, R, P * P, B, 2], -1 to 1 over the canvas.
        weight: float32 [N, R, P * P, B], or None where all samples count alike.
        share: float32 [N, R, 1, 1], by which a bin's sum becomes its average, or None.
        cut: bool [N, R, 1, 1], RoIs that got fewer samples than they need, or None.
    """

    grid: Array
    weight: Array | None = None
    share: Array | None = None
    cut: Array | None = None


def sample_places(
    xp: Arithmetic, rois: Array, valid: Array, row: Array, spec: PoolerSpec, plan: SamplePlan
) -> Places:
    """Place the samples of every RoI.

    1. In cells of the RoI's level: corner, sides, samples.
    2. What lies outside the level by the pooler's own rule counts 0. Decided here, before the
       level's place on the canvas is added, or thin boxes at the border would read a neighbour.
    3. The rest is clamped into the level, so that no sample reads its neighbour's tile.
    4. Only then to the canvas.

    Args:
        xp: the arithmetic of the arrays.
        rois: float32 [N, R, 4] xyxy, canvas pixels.
        valid: bool [N, R]; other rows stand nowhere, whatever their coordinates.
        row: float32 [N, R, 1, 8], each RoI's row of `Packing.level_table`.
        spec: of the pooler.
        plan: its layout.
    """
    scale, side, slope, shift = xp.split(row, 4, 3)  # [N, R, 1, 2] each
    low, high = xp.split(xp.unsqueeze(rois, 2), 2, 3)
    start, sides = in_cells(xp, low, high, scale, spec)
    if not plan.budget:
        samples = start + sides / float(step_count(spec)) * xp.numbers(_steps(spec))
        before, behind = margins(spec)
        outside = xp.either(samples < -before, samples > side + (behind - 1.0))
        absent = xp.either(outside, xp.invert(xp.unsqueeze(valid, 2, 3)))
        return Places(_on_canvas(xp, samples, absent, side, slope, shift))
    by_bin = [xp.unsqueeze(part, 3) for part in (start, sides, side, slope, shift)]
    start, sides, side, slope, shift = by_bin  # [N, R, 1, 1, 2]
    found = joint_samples(xp, start, sides, side, spec, plan)
    is_valid = xp.unsqueeze(valid, 2, 3)  # [N, R, 1, 1]
    absent = xp.either(found.absent, xp.invert(xp.unsqueeze(is_valid, 4)))
    return Places(
        _on_canvas(xp, found.samples, absent, side, slope, shift),
        None if found.weight is None else xp.where(is_valid, found.weight, 0.0),
        None if found.share is None else xp.where(is_valid, found.share, 0.0),
        xp.both(found.cut, is_valid),
    )


def level_rows(packing: Packing, spec: PoolerSpec) -> NDArray[np.float32]:
    """The table [L, 8] of `Packing.level_table` for a pooler."""
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
    return xp.where(absent, _NOWHERE, inside * slope + shift)


def _steps(spec: PoolerSpec) -> Numbers:
    """[S, 2]: each sample's place in the RoI; y runs slower."""
    steps = axis_steps(spec)
    return [[x, y] for y in steps for x in steps]
