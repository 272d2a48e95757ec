"""How a layer's inputs go together: the sum of x xᵀ over what its weights are multiplied with.

Rounding a weight changes the answer by its input; two inputs that rise and fall together can undo
each other's rounding. `calib.rounding.gptq` needs these sums for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from calib.graph.layers import Layer
from model.arrays import Float32

# Places looked at per photo and layer; their sums are steady long before every place was seen.
_PLACES = 512
# Inputs that are looked at together. Larger layers are cut: 4,096 by 4,096 sums take 67 MB.
_MOST_TOGETHER = 4096


class SecondMoments:
    """Sums for one layer, fed photo by photo.

    The columns of a group's weights, [outputs, columns], are cut into runs of whole input channels;
    `runs` says where, and inputs of different runs count as unrelated.
    """

    def __init__(self, layer: Layer, seed: int = 0) -> None:
        self._layer = layer
        self._groups = layer.groups
        columns = layer.rows().shape[2]
        per_channel = columns // layer.channels_in_group
        run = max(_MOST_TOGETHER // per_channel, 1) * per_channel
        self.runs = [slice(start, min(start + run, columns)) for start in range(0, columns, run)]
        self._sums: list[list[Float32]] | None = None
        self._count = 0
        self._random = np.random.default_rng(seed)

    def observe(self, data: Float32) -> None:
        """Add what the layer reads of a photo, float32 [N, C, …]."""
        if not len(data):
            return
        patches = self._patches(data)
        self._count += patches.shape[1]
        found = [[patches[g][:, run] for run in self.runs] for g in range(self._groups)]
        if self._sums is None:
            self._sums = [[one.T @ one for one in group] for group in found]
            return
        for sums, group in zip(self._sums, found, strict=True):
            for total, one in zip(sums, group, strict=True):
                total += one.T @ one

    def means(self) -> Iterator[tuple[int, slice, Float32]]:
        """Per group and run: float32 [columns, columns], the mean of x xᵀ."""
        for group, sums in enumerate(self._sums or ()):
            for run, total in zip(self.runs, sums, strict=True):
                yield group, run, total / np.float32(self._count)

    def _patches(self, data: Float32) -> Float32:
        """[groups, places, columns] of randomly chosen places."""
        if self._layer.node.op_type == "Gemm":
            rows = self._chosen(len(data))
            return data[rows][None]
        return self._windows(data)

    def _windows(self, data: Float32) -> Float32:
        """As a convolution sees them."""
        attributes = self._layer.node.attributes
        kernel = self._layer.weights.shape[2:]
        strides = attributes.get_ints("strides", [1] * len(kernel))
        dilations = attributes.get_ints("dilations", [1] * len(kernel))
        pads = attributes.get_ints("pads", [0] * 2 * len(kernel))
        height, width = data.shape[2:]
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        high = (height + pads[0] + pads[2] - spans[0]) // strides[0] + 1
        wide = (width + pads[1] + pads[3] - spans[1]) // strides[1] + 1
        chosen = self._chosen(len(data) * high * wide)
        image, place = np.divmod(chosen, high * wide)
        top, left = np.divmod(place, wide)
        rows = top[:, None] * strides[0] - pads[0] + np.arange(kernel[0]) * dilations[0]
        columns = left[:, None] * strides[1] - pads[1] + np.arange(kernel[1]) * dilations[1]
        inside = (_within(rows, height)[:, :, None]) & (_within(columns, width)[:, None, :])
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        # [places, kh, kw, C]: the advanced indices stand apart, so their axes come first.
        picked = data[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        picked = picked * inside[..., None]
        patches = picked.transpose(3, 0, 1, 2).reshape(self._groups, -1, len(chosen), *kernel)
        return np.ascontiguousarray(patches.transpose(0, 2, 1, 3, 4)).reshape(
            self._groups, len(chosen), -1
        )

    def _chosen(self, places: int) -> npt.NDArray[np.int64]:
        if places <= _PLACES:
            return np.arange(places)
        return self._random.choice(places, _PLACES, replace=False)


def _within(places: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (places >= 0) & (places < size)
    return inside
