"""`pyramid_pool` as one GridSample on a canvas that holds all levels.

Legend: N images, R RoIs per image, C channels, P pooled side, s samples per bin side, S = P * s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.lowering.level_rule import choose_level
from export.lowering.values import Value, array, cut, ints, none_open, number, op
from model.errors import ExportError
from model.level_rule import level_areas
from model.packing import Packing, pack
from model.spec import PoolerSpec

# Beyond [-1, 1] by more than a cell of any canvas: GridSample's zero padding answers 0 there.
_NOWHERE = 4.0


def pool_packed(
    features: Sequence[Value],
    rois: Value,
    valid: Value,
    spec: PoolerSpec,
    batch: int,
    chunk_bytes: int,
) -> tuple[Value, Value]:
    """Sample every RoI from the packed canvas, average each bin, answer [N * R, C, P, P].

    Args:
        features: one float32 [N, C, H_l, W_l] per level, of fixed sides, finest first.
        rois: float32 [N, R, 4] xyxy, canvas pixels.
        valid: bool [N, R]; other rows answer zeros.
        spec: strides, bins, samples and level rule.
        batch: the largest N; with `chunk_bytes` it decides how many RoIs are sampled at once.
        chunk_bytes: the most that one tensor of samples may take.

    Raises:
        ExportError: a canvas without fixed sides, or adaptive sampling, whose number of samples
            depends on the RoI.
    """
    if spec.sampling_ratio < 1:
        raise ExportError(
            "native lowering: expected a sampling ratio of at least 1, got 0 (adaptive), whose "
            "number of samples depends on the RoI; export with --target onnxruntime"
        )
    areas = level_areas(spec)
    used = list(features)[: len(areas) + 1]
    packing = pack([_fixed_hw(feature) for feature in used])
    canvas = assemble(packing, used)
    grid = _grid(rois, valid, areas, packing, spec)  # [N, R, S * S, 2]
    channels = int(used[0].shape[1])
    sample_bytes = 4 * batch * channels * (spec.output_size * spec.sampling_ratio) ** 2
    pieces = [
        _sample(canvas, piece, spec)
        for piece, _ in cut(grid, int(rois.shape[1]), max(chunk_bytes // sample_bytes, 1), 1)
    ]
    pooled = op.Concat(*pieces, axis=1) if len(pieces) > 1 else pieces[0]  # [N, R, C, P * P]
    together = op.Reshape(pooled, ints(-1, channels, spec.output_size, spec.output_size))
    return together, none_open(valid)


def assemble(packing: Packing, features: Sequence[Value]) -> Value:
    """Lay float32 [N, C, H_l, W_l] maps out on one [N, C, H, W] canvas, zero between them."""
    along = 3 if packing.in_rows else 2
    across = 5 - along
    length, breadth = packing.canvas_hw[along - 2], packing.canvas_hw[across - 2]
    spare = breadth - sum(packing.breadth(group) for group in packing.groups)
    laid = []
    for group in packing.groups:
        room = packing.breadth(group) + (spare if group == packing.groups[-1] else 0)
        tiles = []
        for level in group:
            missing = [0, 0, 0, 0]
            missing[across] = room - packing.sides_hw[level][across - 2]
            missing[along] = length - packing.length(group) if level == group[-1] else 0
            tiles.append(_padded(features[level], missing))
        laid.append(op.Concat(*tiles, axis=along) if len(tiles) > 1 else tiles[0])
    return op.Concat(*laid, axis=across) if len(laid) > 1 else laid[0]


def _padded(feature: Value, after: Sequence[int]) -> Value:
    """Zeros after each axis."""
    return op.Pad(feature, ints(0, 0, 0, 0, *after)) if any(after) else feature


def _fixed_hw(feature: Value) -> tuple[int, int]:
    height, width = feature.shape[2], feature.shape[3]
    if not isinstance(height, int) or not isinstance(width, int):
        raise ExportError("native lowering: expected a canvas of fixed size; say --size HxW")
    return height, width


def _grid(
    rois: Value,
    valid: Value,
    areas: Sequence[float],
    packing: Packing,
    spec: PoolerSpec,
) -> Value:
    """Float32 [N, R, S * S, 2]: where to sample, x before y, -1 to 1 over the canvas.

    1. In cells of the RoI's level: corner, bin size, samples.
    2. torchvision's zero rule: beyond [-1, side] a sample is 0. Decided here, before the level's
       place on the canvas is added, or thin boxes at the border would read a neighbour.
    3. The rest is clamped into the level, so that no sample reads its neighbour's tile.
    4. Only then to the canvas.
    """
    table = array(packing.level_table(spec.strides))  # [L, 8]
    if areas:
        row = op.Unsqueeze(op.Gather(table, choose_level(rois, areas), axis=0), ints(2))
    else:
        row = op.Reshape(table, ints(1, 1, 1, 8))
    scale, side, slope, shift = op.Split(row, num_outputs=4, axis=3)  # [N, R, 1, 2] each
    corners = op.Mul(op.Unsqueeze(rois, ints(2)), op.Concat(scale, scale, axis=3))
    if spec.aligned:
        corners = op.Sub(corners, number(0.5))
    start, end = op.Split(corners, num_outputs=2, axis=3)
    extent = op.Sub(end, start)
    if not spec.aligned:
        extent = op.Max(extent, number(1.0))
    samples = op.Add(
        start, op.Mul(op.Div(extent, number(spec.output_size)), array(_positions(spec)))
    )
    outside = op.Or(op.Less(samples, number(-1.0)), op.Greater(samples, side))
    absent = op.Or(outside, op.Not(op.Unsqueeze(valid, ints(2, 3))))
    inside = op.Min(op.Max(samples, number(0.0)), op.Sub(side, number(1.0)))
    return op.Where(absent, number(_NOWHERE), op.Add(op.Mul(inside, slope), shift))


def _positions(spec: PoolerSpec) -> np.ndarray:
    """Float32 [S * S, 2]: each sample's place in the RoI in units of bins, x before y."""
    steps = np.arange(spec.output_size)[:, None] + (
        (np.arange(spec.sampling_ratio) + 0.5) / spec.sampling_ratio
    )
    y, x = np.meshgrid(steps.reshape(-1), steps.reshape(-1), indexing="ij")
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def _sample(canvas: Value, grid: Value, spec: PoolerSpec) -> Value:
    """Float32 [N, R', C, P * P]: sample, then average the s * s samples of each bin."""
    size, ratio = spec.output_size, spec.sampling_ratio
    flat = op.Reshape(grid, ints(0, -1, size * ratio, 2))  # [N, R' * S, S, 2]
    sampled = op.GridSample(
        canvas, flat, mode="bilinear", padding_mode="zeros", align_corners=0
    )  # [N, C, R' * S, S]
    if ratio > 1:
        sampled = op.AveragePool(sampled, kernel_shape=[ratio, ratio], strides=[ratio, ratio])
    by_roi = op.Reshape(sampled, ints(0, 0, -1, size * size))
    return op.Transpose(by_roi, perm=[0, 2, 1, 3])
