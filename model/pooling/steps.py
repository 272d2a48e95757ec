"""The samples of a bin, if all RoIs have the same number."""

from __future__ import annotations

from model.spec import PoolerSpec

# In cells. Samples of crops, and of RoIs of whole cells, are exactly on the limit: rounding must
# not move them outside.
_SLACK = 1e-4


def axis_steps(spec: PoolerSpec) -> list[float]:
    """Positions of the samples along one axis of a RoI, in units of the RoI's side / `step_count`.

    The unit is a bin; for `crop_and_resize`, which samples from corner to corner, the distance
    between two samples.
    """
    size, ratio = spec.output_size, spec.sampling_ratio
    if spec.kind == "crop_and_resize":
        return [float(i) for i in range(size * ratio)] if size * ratio > 1 else [0.5]
    offsets = [(i + 0.5) / ratio for i in range(ratio)]
    if spec.placement == "even":
        offsets = [(i + 1) / (ratio + 1) for i in range(ratio)]
    return [bin_index + offset for bin_index in range(size) for offset in offsets]


def step_count(spec: PoolerSpec) -> int:
    """The length of a RoI in units of `axis_steps`."""
    if spec.kind == "crop_and_resize":
        return max(spec.output_size * spec.sampling_ratio - 1, 1)
    return spec.output_size


def margins(spec: PoolerSpec) -> tuple[float, float]:
    """Distance before the first and after the last cell at which a sample still counts, in cells.

    Source: torchvision `roi_align`; TensorFlow `crop_and_resize`, whose extrapolation value is 0.
    """
    margin = {"crop_and_resize": _SLACK, "roi_warp": 1.0 + _SLACK}.get(spec.kind, 1.0)
    return margin, margin
