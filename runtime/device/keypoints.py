"""Heat maps to keypoints on the device: device arrays in, device arrays out.

Box sizes are on the device only, so each map is resized on a grid of the canvas's size, and the
pixels outside the box are ignored. That computes many more pixels than
`runtime.postprocessing.keypoints`, but the host never waits for a box.

Legend: D detections, J keypoints, S side of a heat map, H x W the largest box; boxes are xyxy in
canvas pixels.
"""

from __future__ import annotations

from typing import Any

from runtime.device.library import Array, clipped
from runtime.postprocessing.bicubic import SHARPNESS
from runtime.postprocessing.keypoints import KeypointScore

# Pixels in memory at a time: 64 MB.
_BLOCK_PIXELS = 1 << 24


def decode_on_device(
    xp: Any,
    heatmaps: Array,
    boxes_xyxy: Array,
    most_hw: tuple[int, int],
    score: KeypointScore = "logit",
) -> Array:
    """As `runtime.postprocessing.keypoints.decode`, on the heat maps' device.

    Args:
        xp: namespace of the arrays.
        heatmaps: float32 [D, J, S, S] logits.
        boxes_xyxy: float32 [D, 4], canvas pixels.
        most_hw: H and W; no box exceeds them.
        score: see there.

    Returns:
        float32 [D, J, 3]: x, y in canvas pixels, score. Of equal peaks, the library's choice.
    """
    import array_api_compat as compat

    count, joints, side, _ = heatmaps.shape
    device = compat.device(boxes_xyxy)
    keypoints = xp.empty((count, joints, 3), dtype=xp.float32, device=device)
    sides = clipped(xp, boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 1.0)
    grid_sides = xp.ceil(sides)
    step = sides / grid_sides
    grid = [xp.arange(most, dtype=xp.float32, device=device) for most in most_hw]
    block = max(1, _BLOCK_PIXELS // (most_hw[0] * most_hw[1]))
    for row in range(count):
        down, across = (_axis(xp, grid[axis], grid_sides[row, 1 - axis], side) for axis in (0, 1))
        for start in range(0, joints, block):
            some = slice(start, start + block)
            peaks, indices = _peaks(xp, heatmaps[row, some, ...], down, across)
            scores = peaks if score == "logit" else _softmax(xp, heatmaps[row, some, ...], peaks)
            pixel = xp.stack([indices % most_hw[1], indices // most_hw[1]], axis=1)
            center = xp.astype(pixel, xp.float32) + 0.5
            keypoints[row, some, :2] = center * step[row, :] + boxes_xyxy[row, :2]
            keypoints[row, some, 2] = scores
    return keypoints


def _axis(xp: Any, pixel: Array, size: Array, side: int) -> tuple[list[Array], list[Array], Array]:
    """Torch's bicubic axis: four samples and weights per pixel, [n], and which lie beyond the box.

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
    """The largest pixel of each map [J, S, S] inside the box, and its flat grid index, both [J]."""
    samples, weights, beyond = across
    lines = xp.take(maps, samples[0], axis=2) * weights[0]  # [J, S, W]
    for sample, weight in zip(samples[1:], weights[1:], strict=True):
        lines += xp.take(maps, sample, axis=2) * weight
    samples, weights, below = down
    resized = xp.take(lines, samples[0], axis=1) * weights[0][:, None]
    for sample, weight in zip(samples[1:], weights[1:], strict=True):
        resized += xp.take(lines, sample, axis=1) * weight[:, None]
    # Pixels beyond the box have clamped samples: wrong but finite.
    beyond = below[:, None] | beyond[None, :]
    resized = xp.where(beyond, xp.full_like(resized, -float("inf")), resized)
    flat = xp.reshape(resized, (maps.shape[0], -1))
    return xp.max(flat, axis=1), xp.argmax(flat, axis=1)


def _softmax(xp: Any, maps: Array, peaks: Array) -> Array:
    """Softmax of each resized peak [J] over the positions of its map [J, S, S]."""
    logits = xp.reshape(maps, (maps.shape[0], -1))
    highest = xp.max(logits, axis=1)
    return xp.exp(peaks - highest) / xp.sum(xp.exp(logits - highest[:, None]), axis=1)
