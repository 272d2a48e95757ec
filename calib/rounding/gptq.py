"""GPTQ: round weights column by column, each column compensating the errors of those before it.

Source: Frantar et al., GPTQ, 2022 (after Hassibi, Optimal Brain Surgeon, 1993), with columns in
the order of their inputs' magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from calib.graph.layers import Layer
from model.arrays import Bool, Float32, Float64, Int8, Int64

# Positions sampled per photo and layer; the sums converge long before all are used.
_POSITIONS = 512
# Columns of one block: sums of 4,096 by 4,096 take 67 MB.
_BLOCK_COLUMNS = 4096
# Added to the diagonal, as a fraction of its mean, so that inputs that hardly vary on the photos
# do not produce extreme weights.
_DAMPING = 0.01
# Columns rounded before their errors are spread over all later ones at once.
_BLOCK = 128


class InputHessian:
    """Sums for one layer, or several that share weights, fed photo by photo.

    The columns of a group's weights, [outputs, columns], are cut into blocks of whole input
    channels; inputs of different blocks count as uncorrelated.
    """

    def __init__(self, layer: Layer, seed: int = 0) -> None:
        self._layer = layer
        self._groups = layer.groups
        columns = layer.rows().shape[2]
        per_channel = columns // layer.channels_in_group
        size = max(_BLOCK_COLUMNS // per_channel, 1) * per_channel
        self._blocks = [
            slice(start, min(start + size, columns)) for start in range(0, columns, size)
        ]
        self._sums: list[list[Float32]] | None = None
        self._count = 0
        self._random = np.random.default_rng(seed)

    def observe(self, data: Float32) -> None:
        """Add the layer's input on a photo, float32 [N, C, …]."""
        if not len(data):
            return
        patches = self._patches(data)
        self._count += patches.shape[1]
        cut = [[patches[g][:, block] for block in self._blocks] for g in range(self._groups)]
        if self._sums is None:
            self._sums = [[part.T @ part for part in group] for group in cut]
            return
        for sums, group in zip(self._sums, cut, strict=True):
            for total, part in zip(sums, group, strict=True):
                total += part.T @ part

    def blocks(self) -> Iterator[tuple[int, slice, Float32]]:
        """Group, columns and float32 [columns, columns], the mean of x xᵀ; none without input."""
        for group, sums in enumerate(self._sums or ()):
            for block, total in zip(self._blocks, sums, strict=True):
                yield group, block, total / np.float32(self._count)

    def _patches(self, data: Float32) -> Float32:
        """[groups, positions, columns] at random positions."""
        if self._layer.node.op_type == "Gemm":
            rows = self._sample(len(data))
            return data[rows][None]
        return self._windows(data)

    def _windows(self, data: Float32) -> Float32:
        """The inputs of a convolution, padding included."""
        attributes = self._layer.node.attributes
        kernel = self._layer.weights.shape[2:]
        strides = attributes.get_ints("strides", [1] * len(kernel))
        dilations = attributes.get_ints("dilations", [1] * len(kernel))
        pads = attributes.get_ints("pads", [0] * 2 * len(kernel))
        height, width = data.shape[2:]
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        output_h = (height + pads[0] + pads[2] - spans[0]) // strides[0] + 1
        output_w = (width + pads[1] + pads[3] - spans[1]) // strides[1] + 1
        sample = self._sample(len(data) * output_h * output_w)
        image, cell = np.divmod(sample, output_h * output_w)
        top, left = np.divmod(cell, output_w)
        rows = top[:, None] * strides[0] - pads[0] + np.arange(kernel[0]) * dilations[0]
        columns = left[:, None] * strides[1] - pads[1] + np.arange(kernel[1]) * dilations[1]
        inside = (_within(rows, height)[:, :, None]) & (_within(columns, width)[:, None, :])
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        # [positions, kh, kw, C]: separated advanced indices put their axes first.
        picked = data[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        picked = picked * inside[..., None]
        patches = picked.transpose(3, 0, 1, 2).reshape(self._groups, -1, len(sample), *kernel)
        return np.ascontiguousarray(patches.transpose(0, 2, 1, 3, 4)).reshape(
            self._groups, len(sample), -1
        )

    def _sample(self, positions: int) -> Int64:
        if positions <= _POSITIONS:
            return np.arange(positions)
        return self._random.choice(positions, _POSITIONS, replace=False)


def _within(indices: Int64, size: int) -> Bool:
    inside: Bool = (indices >= 0) & (indices < size)
    return inside


def gptq(weights: Float32, scales: Float32, hessian: Float32, levels: int = 127) -> Int8:
    """Codes whose products with the inputs come close to those of the weights.

    Args:
        weights: float32 [outputs, columns].
        scales: float32 [outputs].
        hessian: float32 [columns, columns], the mean of x xᵀ over inputs x.
        levels: magnitude of the largest code.

    Returns:
        int8 [outputs, columns], -levels to levels.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    spread = _inverse_root(hessian[np.ix_(order, order)].astype(np.float64)).astype(np.float32)
    remaining = weights[:, order].astype(np.float32)
    ordered = np.zeros(remaining.shape, np.int8)
    for start in range(0, remaining.shape[1], _BLOCK):
        end = min(start + _BLOCK, remaining.shape[1])
        errors = np.zeros((len(remaining), end - start), np.float32)
        for column in range(start, end):
            steps = np.clip(np.rint(remaining[:, column] / scales), -levels, levels)
            ordered[:, column] = steps
            error = (remaining[:, column] - steps * scales) / spread[column, column]
            remaining[:, column:end] -= error[:, None] * spread[column, column:end]
            errors[:, column - start] = error
        remaining[:, end:] -= errors @ spread[start:end, end:]
    codes = np.empty_like(ordered)
    codes[:, order] = ordered
    return codes


def _inverse_root(hessian: Float64) -> Float64:
    """Upper triangular U with Uᵀ U the inverse: row i spreads the error of column i."""
    mean = float(np.trace(hessian)) / len(hessian)
    if mean == 0.0:  # all inputs were zero: no error to compensate
        return np.eye(len(hessian))
    inverse = np.linalg.inv(hessian + _DAMPING * mean * np.eye(len(hessian)))
    # `inv` is slightly asymmetric, and `cholesky` reads one half.
    lower = np.linalg.cholesky((inverse + inverse.T) / 2)
    return np.asarray(lower.T, np.float64)
