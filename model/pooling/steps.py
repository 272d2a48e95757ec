"""The samples of a bin where all RoIs have the same number of them."""

from __future__ import annotations

from model.spec import PoolerSpec

# In cells. Samples of crops, and of RoIs of whole cells, stand exactly on the limit: rounding must
# not throw them over it.
_SLACK = 1e-4


def axis_steps(spec: PoolerSpec) -> list[float]:
    """Where the samples along one axis of a RoI stand, in units of the RoI's side / `step_count`.

    Those are bins; for `crop_and_resize`, which samples from corner to corner, the distance of
    two samples.
    """
    size, ratio = spec.output_size, spec.sampling_ratio
    if spec.kind == "crop_and_resize":
        return [float(i) for i in range(size * ratio)] if size * ratio > 1 else [0.5]
    parts = [(i + 0.5) / ratio for i in range(ratio)]
    if spec.placement == "even":
        parts = [(i + 1) / (ratio + 1) for i in range(ratio)]
    return [place + part for place in range(size) for part in parts]


def step_count(spec: PoolerSpec) -> int:
    """How many steps of 1 a RoI is long."""
    if spec.kind == "crop_and_resize":
        return max(spec.output_size * spec.sampling_ratio - 1, 1)
    return spec.output_size


def margins(spec: PoolerSpec) -> tuple[float, float]:
    """How far before the first cell and behind the last one a sample still counts, in cells.

    Source: torchvision `roi_align`; TensorFlow `crop_and_resize`, whose extrapolation value is 0.
    """
    margin = {"crop_and_resize": _SLACK, "roi_warp": 1.0 + _SLACK}.get(spec.kind, 1.0)
    return margin, margin
