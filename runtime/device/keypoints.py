"""Heat maps to keypoints where they are: device arrays in, device arrays out.

How large the boxes are is known only on the device, so each map is resized on a grid as large as
the canvas, and pixels beyond the box's own are left out. That is many more pixels than
`runtime.postprocessing.keypoints` looks at, but no host waits for a box.

Legend: D detections, J keypoints, S side of a heat map, H x W the most pixels that a box has; boxes
are xyxy in canvas pixels.
"""

from __future__ import annotations

from typing import Any

from runtime.device.library import Array, clipped
from runtime.postprocessing.bicubic import SHARPNESS
from runtime.postprocessing.keypoints import KeypointScore

# Pixels that stand in memory at a time: 64 MB.
_BLOCK_PIXELS = 1 << 24


def decode_on_device(
    xp: Any,
    heatmaps: Array,
    boxes_xyxy: Array,
    most_hw: tuple[int, int],
    score: KeypointScore = "logit",
) -> Array:
    """Do what `runtime.postprocessing.keypoints.decode` does, on the heat maps' device.

    Args:
        xp: namespace of the arrays.
        heatmaps: float32 [D, J, S, S] logits.
        boxes_xyxy: float32 [D, 4], canvas pixels.
        most_hw: sides of the canvas, which no box exceeds.
        score: see there.

    Returns:
        float32 [D, J, 3]: x, y in canvas pixels, score. Of equal peaks, whichever the library
        finds.
    """
    import array_api_compat as compat

    count, joints, side, _ = heatmaps.shape
    device = compat.device(boxes_xyxy)
    found = xp.empty((count, joints, 3), dtype=xp.float32, device=device)
    sides = clipped(xp, boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 1.0)
    whole = xp.ceil(sides)
    step = sides / whole
    grid = [xp.arange(most, dtype=xp.float32, device=device) for most in most_hw]
    block = max(1, _BLOCK_PIXELS // (most_hw[0] * most_hw[1]))
    for row in range(count):
        down, across = (_axis(xp, grid[axis], whole[row, 1 - axis], side) for axis in (0, 1))
        for start in range(0, joints, block):
            some = slice(start, start + block)
            peaks, places = _peaks(xp, heatmaps[row, some, ...], down, across)
            third = peaks if score == "logit" else _softmax(xp, heatmaps[row, some, ...], peaks)
            pixel = xp.stack([places % most_hw[1], places // most_hw[1]], axis=1)
            centre = xp.astype(pixel, xp.float32) + 0.5
            found[row, some, :2] = centre * step[row, :] + boxes_xyxy[row, :2]
            found[row, some, 2] = third
    return found


def _axis(xp: Any, pixel: Array, size: Array, side: int) -> tuple[list[Array], list[Array], Array]:
    """Torch's bicubic axis: four samples and weights of each pixel, [n]; what lies beyond the box.

    See `runtime.postprocessing.bicubic.resize_axis`.
    """
    scale = xp.full_like(size, side) / size
    source = scale * (pixel + 0.5) - 0.5
    below = xp.floor(source)
    t = source - below
    u, a = 1.0 - t, SHARPNESS
    inner = [1.0 + s * s * ((a + 2.0) * s - (a + 3.0)) for s in (t, u)]
    weights = [a * t * u * u, *inner, a * t * t * u]
    first = xp.astype(below, xp.int64)
    samples = [clipped(xp, first + tap, 0, side - 1) for tap in (-1, 0, 1, 2)]
    return samples, weights, pixel >= size


def _peaks(xp: Any, maps: Array, down: Any, across: Any) -> tuple[Array, Array]:
    """The largest pixel of each map, [J, S, S], within the box, and its place on the grid: [J]."""
    samples, weights, beyond = across
    lines = xp.take(maps, samples[0], axis=2) * weights[0]  # [J, S, W]
    for sample, weight in zip(samples[1:], weights[1:], strict=True):
        lines += xp.take(maps, sample, axis=2) * weight
    samples, weights, below = down
    resized = xp.take(lines, samples[0], axis=1) * weights[0][:, None]
    for sample, weight in zip(samples[1:], weights[1:], strict=True):
        resized += xp.take(lines, sample, axis=1) * weight[:, None]
    # The weights of pixels beyond the box are those of other points; their sums are finite.
    beyond = below[:, None] | beyond[None, :]
    resized = xp.where(beyond, xp.full_like(resized, -float("inf")), resized)
    flat = xp.reshape(resized, (maps.shape[0], -1))
    return xp.max(flat, axis=1), xp.argmax(flat, axis=1)


def _softmax(xp: Any, maps: Array, peaks: Array) -> Array:
    """Share of each resized peak, [J], in its map's positions, [J, S, S]."""
    logits = xp.reshape(maps, (maps.shape[0], -1))
    highest = xp.max(logits, axis=1)
    return xp.exp(peaks - highest) / xp.sum(xp.exp(logits - highest[:, None]), axis=1)
