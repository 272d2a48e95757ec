"""uint8 frames to the network's planes on the device, as `runtime.preprocessing.canvas` does.

Every sum has the same products in the same order with one rounding each: float results are equal to
the bit, integer ones to the byte.

Legend: N frames of h x w; results are H x W; K taps.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model.spec import PreprocessSpec
from runtime.device import taps
from runtime.device.library import Array
from runtime.device.workspace import Workspace

Layout = Literal["hwc", "chw"]

_AXES: dict[Layout, tuple[int, int, int]] = {"hwc": (1, 2, 3), "chw": (2, 3, 1)}
_TAPS = {
    "bilinear": taps.torchvision,
    "pillow-bilinear": taps.pillow,
    "opencv-bilinear": taps.opencv,
    "skimage-bilinear": taps.skimage,
}


def resize(
    frames: Array,
    layout: Layout,
    hw: tuple[int, int],
    spec: PreprocessSpec,
    workspace: Workspace,
    channel_order: Literal["rgb", "bgr"] = "rgb",
) -> Array:
    """Resize frames and convert them to the graph's channel order and value range.

    Args:
        frames: uint8 [N, h, w, 3], or [N, 3, h, w] with layout "chw".
        layout: position of the channels.
        hw: H and W.
        spec: interpolation, channels and range.
        workspace: caches the tables.
        channel_order: of the frames.

    Returns:
        float32 [N, 3, H, W].
    """
    xp = workspace.library.xp
    rows, columns, channels = _AXES[layout]
    if channel_order != spec.channel_order:
        frames = xp.flip(frames, axis=channels)
    factor = float(np.float32(spec.value_range / 255.0))
    if hw == (frames.shape[rows], frames.shape[columns]):
        resized = frames  # identity in all four
    else:
        down = _axis(workspace, spec.interpolation, frames.shape[rows], hw[0], rows)
        across = _axis(workspace, spec.interpolation, frames.shape[columns], hw[1], columns)
        if spec.interpolation == "bilinear":
            resized, factor = _bilinear(xp, frames, down, across, factor), 1.0
        else:
            resized = _RESIZERS[spec.interpolation](xp, frames, down, across)
    if layout == "hwc":
        resized = xp.permute_dims(resized, (0, 3, 1, 2))
    planes = xp.astype(resized, xp.float32, copy=False)
    return planes if factor == 1.0 else planes * factor


class _Axis:
    """Index and weight tables along one axis, K taps each."""

    def __init__(self, axis: int, index: Array, weight: Array) -> None:
        self.axis, self.index, self.weight = axis, index, weight

    def take(self, xp: Any, source: Array, tap: int, dtype: Any) -> Array:
        """The source pixels of one tap."""
        return xp.astype(xp.take(source, self.index[tap, ...], axis=self.axis), dtype, copy=False)

    def weighted(self, xp: Any, source: Array, dtype: Any) -> Array:
        """The weighted sum over the taps, in order."""
        total = self.take(xp, source, 0, dtype) * self.weight[0, ...]
        for tap in range(1, self.index.shape[0]):
            total += self.take(xp, source, tap, dtype) * self.weight[tap, ...]
        return total


def _axis(workspace: Workspace, method: str, source: int, target: int, axis: int) -> _Axis:
    def make() -> tuple[npt.NDArray[Any], ...]:
        tables = _TAPS[method](source, target)
        # Weights broadcast along `axis` of a 4-d array.
        shape = [len(tables.weight), 1, 1, 1, 1]
        shape[1 + axis] = target
        return tables.index, np.ascontiguousarray(tables.weight).reshape(shape)

    index, weight = workspace.tables((method, source, target, axis), make)
    return _Axis(axis, index, weight)


def _bilinear(xp: Any, frames: Array, down: _Axis, across: _Axis, factor: float) -> Array:
    """Rows first, then columns with weights scaled to the value range, as on the host."""
    mixed = down.take(xp, frames, 0, xp.float32)
    mixed += (down.take(xp, frames, 1, xp.float32) - mixed) * down.weight[1, ...]
    total = across.take(xp, mixed, 0, xp.float32) * (across.weight[0, ...] * factor)
    total += across.take(xp, mixed, 1, xp.float32) * (across.weight[1, ...] * factor)
    return total


def _pillow(xp: Any, frames: Array, down: _Axis, across: _Axis) -> Array:
    """Two passes, each rounded to bytes."""
    resized = frames
    h, w = (frames.shape[axis.axis] for axis in (down, across))
    hw = down.index.shape[1], across.index.shape[1]
    passes = (down, across) if taps.pillow_goes_down_first((h, w), hw) else (across, down)
    for axis in passes:
        total = axis.weighted(xp, resized, xp.int32)
        total += 1 << (taps.PILLOW_BITS - 1)
        # Weights are not negative and sum to one after rounding: no value leaves 0 to 255.
        resized = xp.astype(total >> taps.PILLOW_BITS, xp.uint8)
    return resized


def _opencv(xp: Any, frames: Array, down: _Axis, across: _Axis) -> Array:
    """OpenCV shifts bits out after the columns and in each of the two rows."""
    columns = across.weighted(xp, frames, xp.int32) >> 4
    upper, lower = (
        (down.take(xp, columns, tap, xp.int32) * down.weight[tap, ...]) >> 16 for tap in (0, 1)
    )
    return (upper + lower + 2) >> 2


def _skimage(xp: Any, frames: Array, down: _Axis, across: _Axis) -> Array:
    """Four products in float64, clipped to each frame's range, truncated to bytes."""
    total = None
    for row in (0, 1):
        line = down.take(xp, frames, row, xp.float64) * down.weight[row, ...]
        for column in (0, 1):
            part = across.take(xp, line, column, xp.float64) * across.weight[column, ...]
            total = part if total is None else total + part
    lowest, highest = (
        xp.astype(bound(frames, axis=(1, 2, 3), keepdims=True), xp.float64)
        for bound in (xp.min, xp.max)
    )
    return xp.astype(xp.minimum(xp.maximum(total, lowest), highest), xp.uint8)


_RESIZERS = {"pillow-bilinear": _pillow, "opencv-bilinear": _opencv, "skimage-bilinear": _skimage}
