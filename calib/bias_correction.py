"""Biases that make up for what rounding the weights takes from a layer's mean answer.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019,
section 4.2, with means that are measured on photos.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from calib.graph.layers import Layer

Float32 = npt.NDArray[np.float32]


class BiasCorrection:
    """A `calib.writers.pairs.BiasShift`, by what its readers see.

    Args:
        layers: to be corrected; those without a bias, and deconvolutions, are left. Layers that
            share weights have means of their own.

    Attributes:
        readers: to be shown what their layers read; see
            `calib.calibration.layer_inputs.show_inputs`.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.readers = [
            (layer, InputMeans(layer))
            for layer in layers
            if layer.bias is not None and layer.scale_axis is not None
        ]
        self._of_node = {str(layer.node.name): reader for layer, reader in self.readers}

    def __call__(self, layer: Layer, lost: Float32) -> Float32 | None:
        """What the layer's bias is to gain.

        Args:
            layer: of any copy of the graph.
            lost: the weights less what their codes stand for, of the weights' shape.

        Returns:
            float32 [output channels]; None for a layer that no input was seen of.
        """
        reader = self._of_node.get(str(layer.node.name))
        means = None if reader is None else reader.means()
        if means is None:
            return None
        shift: Float32 = np.einsum("goc,gc->go", layer.rows(lost), means).reshape(-1)
        return shift


class InputMeans:
    """The mean of what each of a layer's weights is multiplied with, over every place it sees."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._sums = np.zeros((layer.groups, layer.rows().shape[2]))
        self._places = 0

    def observe(self, data: Float32) -> None:
        """Add what the layer reads of a batch, float32 [N, C, …]."""
        if not len(data):
            return
        if self._layer.node.op_type == "Gemm":
            self._sums += data.sum(axis=0, dtype=np.float64)
            self._places += len(data)
            return
        sums, places = self._of_windows(data)
        self._sums += sums.reshape(self._sums.shape)
        self._places += places

    def means(self) -> Float32 | None:
        """float32 [groups, columns], columns as in `Layer.rows`; None where nothing was seen.

        Padding counts as what it is, zeros.
        """
        if not self._places:
            return None
        return (self._sums / self._places).astype(np.float32)

    def _of_windows(self, data: Float32) -> tuple[npt.NDArray[np.float64], int]:
        """[C, kh, kw], the sum over all windows of a convolution; and how many there are."""
        attributes, kernel = self._layer.node.attributes, self._layer.weights.shape[2:]
        strides = attributes.get_ints("strides", [1, 1])
        dilations = attributes.get_ints("dilations", [1, 1])
        pads = attributes.get_ints("pads", [0] * 4)
        padded = np.pad(data, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        high, wide = (
            (size - dilation * (k - 1) - 1) // stride + 1
            for size, dilation, k, stride in zip(
                padded.shape[2:], dilations, kernel, strides, strict=True
            )
        )
        sums = np.empty((data.shape[1], *kernel))
        for row, column in np.ndindex(*kernel):
            top, left = row * dilations[0], column * dilations[1]
            seen = padded[
                :,
                :,
                top : top + (high - 1) * strides[0] + 1 : strides[0],
                left : left + (wide - 1) * strides[1] + 1 : strides[1],
            ]
            sums[:, row, column] = seen.sum(axis=(0, 2, 3), dtype=np.float64)
        return sums, len(data) * high * wide
