"""Every member of the pooling family, RoIs that try it, and the loops it is held to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.ops import roi_levels
from model.spec import PoolerSpec
from tests.oracles import pooling as oracle

# A canonical side of 56 px spreads small RoIs over all levels.
_BASE = PoolerSpec(output_size=3, canonical_size=56.0)


def _spec(**fields: object) -> PoolerSpec:
    return replace(_BASE, **fields)


FAMILY: dict[str, PoolerSpec] = {
    **{
        f"align-average-{ratio or 'adaptive'}-{'aligned' if aligned else 'plain'}": _spec(
            sampling_ratio=ratio, aligned=aligned
        )
        for ratio in (0, 1, 2, 3, 4)
        for aligned in (False, True)
    },
    **{
        f"align-max-{ratio}": _spec(sampling_ratio=ratio, reduce="max", aligned=ratio % 2 == 0)
        for ratio in (1, 2, 3, 4)
    },
    "align-even-average": _spec(placement="even", sampling_ratio=3, aligned=True),
    "align-even-max": _spec(placement="even", reduce="max"),
    "pool-round": _spec(kind="roi_pool"),
    "pool-floor": _spec(kind="roi_pool", quantise="floor"),
    "warp-round-average": _spec(kind="roi_warp", aligned=True),
    "warp-round-max": _spec(kind="roi_warp", reduce="max", placement="even"),
    "warp-floor-average": _spec(kind="roi_warp", quantise="floor", sampling_ratio=1),
    "warp-floor-max": _spec(kind="roi_warp", quantise="floor", reduce="max", sampling_ratio=3),
    "crop-1-stride": _spec(kind="crop_and_resize", sampling_ratio=1),
    "crop-2-stride": _spec(kind="crop_and_resize"),
    "crop-1-image": _spec(kind="crop_and_resize", sampling_ratio=1, crop_frame="image"),
    "crop-2-image": _spec(kind="crop_and_resize", crop_frame="image"),
    "crop-one-point": _spec(kind="crop_and_resize", sampling_ratio=1, output_size=1),
    "precise-plain": _spec(kind="prroi_pool"),
    "precise-aligned": _spec(kind="prroi_pool", aligned=True),
}
FIXED_AVERAGES = tuple(
    name
    for name, spec in FAMILY.items()
    if spec.kind == "roi_align"
    and (spec.reduce, spec.placement) == ("average", "centred")
    and spec.sampling_ratio
)
# One of each form of sampling, for what is not a matter of numbers.
SAMPLINGS = (
    "align-average-adaptive-aligned", "align-max-2", "align-even-max", "pool-round", "pool-floor",
    "warp-round-average", "warp-floor-max", "crop-1-image", "crop-2-stride", "precise-plain",
)  # fmt: skip
ADAPTIVE = tuple(name for name in SAMPLINGS if name.startswith(("align-average", "p")))


@dataclass(frozen=True, slots=True)
class PoolInputs:
    """Features float32 [N, C, H_l, W_l] each, rois float32 [N, R, 4], valid bool [N, R]."""

    features: list[np.ndarray]
    rois: np.ndarray
    valid: np.ndarray

    def feed(self) -> dict[str, np.ndarray]:
        """The inputs of an exported pooler under the names that the tracer gives them."""
        maps = {f"features_{i}": f for i, f in enumerate(self.features)}
        return maps | {"rois": self.rois, "valid": self.valid}


def on_one_level(spec: PoolerSpec) -> PoolerSpec:
    """The same pooler on a level of stride 16."""
    return replace(spec, strides=(16,))


def pool_inputs(
    spec: PoolerSpec,
    seed: int,
    images: int = 1,
    canvas_hw: tuple[int, int] = (128, 160),
    channels: int = 2,
) -> PoolInputs:
    """Maps from a normal distribution and RoIs of every class, four in five of them valid."""
    rng = np.random.default_rng(seed)
    sides = [tuple(side // stride for side in canvas_hw) for stride in spec.strides]
    maps = [rng.normal(size=(images, channels, *hw)).astype(np.float32) for hw in sides]
    rois = np.stack([_rois(rng, canvas_hw) for _ in range(images)])
    return PoolInputs(maps, rois, rng.random(rois.shape[:2]) < 0.8)


def _rois(rng: np.random.Generator, canvas_hw: tuple[int, int]) -> np.ndarray:
    """Inside, at the border, partly and wholly outside, tiny, long, empty, of the whole image."""
    canvas = np.array(canvas_hw[::-1], np.float64)
    centers = rng.uniform(0.2, 0.8, (20, 2)) * canvas
    free = _around(centers[:8], np.exp(rng.uniform(1, 4, (8, 2))))
    border = np.clip(_around(centers[:6] * [0, 1], np.exp(rng.uniform(1, 4, (6, 2)))), 0, None)
    border[3:] = np.concatenate([canvas, canvas])[None] - border[3:][:, [2, 3, 0, 1]]
    # Not centered on the corner itself: a sample there would be in or out by its rounding.
    corners = np.round(rng.random((4, 2))) * canvas + rng.uniform(-9, 9, (4, 2))
    partly = _around(corners, rng.uniform(10, 90, (4, 2)))
    away = [[-60, 20, -10, 50], [20, canvas[1] + 70, 60, canvas[1] + 99]]
    tiny = _around(centers[8:12], np.exp(rng.uniform(-4, 0, (4, 2))))
    long = _around(centers[12:16], [[141.3, 3], [3, 110.7], [150.7, 9], [6, 121.9]])
    x, y = canvas
    whole = [[0, 0, x, y], [0, 0, x - 1, y - 1], [0, 0, x, 8], [30, 30, 30, 30]]
    cells = [[16, 32, 80, 96], [32, 0, 64, y], [x - 48, y - 32, x, y]]  # on cells of every level
    return np.concatenate([free, border, partly, away, tiny, long, whole, cells]).astype(np.float32)


def _around(centers: np.ndarray, sides: object) -> np.ndarray:
    sides = np.asarray(sides, np.float64)
    return np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)


def exact(spec: PoolerSpec, inputs: PoolInputs) -> np.ndarray:
    """The oracle's output: float64 [N * R, C, P, P], zeros where a row is not valid."""
    import torch

    images, count = inputs.valid.shape
    wide = [f.astype(np.float64) for f in inputs.features]
    levels = roi_levels(torch.tensor(inputs.rois).reshape(-1, 4), spec).reshape(images, count)
    shape = (images * count, wide[0].shape[1], spec.output_size, spec.output_size)
    output = np.zeros(shape)
    for image, row in zip(*np.nonzero(inputs.valid), strict=True):
        level = int(levels[image, row])
        pooled = _one(spec, wide[level][image], inputs.rois[image, row], spec.strides[level])
        output[image * count + row] = pooled
    return output


def _one(spec: PoolerSpec, feature: np.ndarray, roi: np.ndarray, stride: int) -> np.ndarray:
    common = feature, roi, spec.output_size, stride
    ratio, reduce = spec.sampling_ratio, spec.reduce
    if spec.kind == "roi_pool":
        return oracle.roi_pool(*common, spec.quantise)
    if spec.kind == "crop_and_resize":
        return oracle.crop_and_resize(*common, ratio, spec.crop_frame)
    if spec.kind == "prroi_pool":
        return oracle.prroi_pool(*common, spec.aligned)
    if spec.kind == "roi_warp":
        rule = spec.aligned, ratio, reduce, spec.quantise, spec.placement
        return oracle.roi_warp(*common, *rule)
    counts = (ratio, ratio)
    if ratio == 0:
        counts = oracle.adaptive_counts(roi, spec.output_size, stride, spec.aligned)
    y, x = (oracle.sample_parts(count, spec.placement) for count in counts)
    return oracle.roi_align(*common, spec.aligned, (y, x), reduce)
