"""RoI pooling, and the choice of the pyramid level."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from model.spec.checks import ADDED, counts, not_negative, positive, require

PoolerKind = Literal["roi_align", "roi_pool", "roi_warp", "crop_and_resize", "prroi_pool"]
_MOST_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class PoolerSpec:
    """A RoI pooler and its level rule.

    Level k = floor(canonical_level + log2(sqrt(w*h)/canonical_size + inner_eps) + outer_eps),
    clamped to the available levels (Feature Pyramid Networks, eq. 1). `strides` has one entry per
    pooled level; a single level needs no rule.

    Attributes:
        output_size: P, bins per side.
        sampling_ratio: n, samples per bin side; 0 is adaptive, ceil(RoI / P) (`roi_align` only).
            `crop_and_resize`: 1 crops to P, 2 crops to 2P and takes the maximum of 2x2.
        aligned: cell centers are at half-integers (detectron2's `ROIAlignV2`).
        kind: `roi_align` (Mask R-CNN, sec. 3), `roi_pool` (Fast R-CNN, sec. 2.1), `roi_warp`
            (MNC, sec. 3.2: the RoI is quantized, its bins are not), `crop_and_resize`
            (TensorFlow), `prroi_pool` (IoU-Net, sec. 3.3: the bilinear surface's exact mean).
        reduce: of a bin's samples (`roi_align`, `roi_warp`).
        quantise: rounding to integer cells in `roi_pool` and `roi_warp`; see `model.pooling`.
        placement: of n samples in a bin of length 1: "centred" (i + 1/2)/n, "even"
            (i + 1)/(n + 1).
        crop_frame: of `crop_and_resize`: "stride" divides by the stride; "image" maps corner to
            corner, the canvas's last pixel to the level's last cell (Matterport).
        levels: the pooled levels, as ascending indices of the pyramid's; empty for the first ones.
    """

    output_size: int = 7
    sampling_ratio: int = 2
    aligned: bool = False
    strides: tuple[int, ...] = (4, 8, 16, 32)
    canonical_size: float = 224.0
    canonical_level: int = 4
    inner_eps: float = 0.0
    outer_eps: float = 1e-6
    kind: PoolerKind = "roi_align"
    reduce: Literal["average", "max"] = "average"
    quantise: Literal["floor", "round"] = "round"
    placement: Literal["centred", "even"] = "centred"
    crop_frame: Literal["stride", "image"] = "stride"
    levels: tuple[int, ...] = field(default=(), metadata=ADDED)

    @property
    def pooled_levels(self) -> tuple[int, ...]:
        """Indices of the pyramid's levels that are pooled, finest first."""
        return self.levels or tuple(range(len(self.strides)))

    def __post_init__(self) -> None:
        counts("pooler", output_size=self.output_size, strides=self.strides)
        require(len(self.strides) >= 1, "pooler: expected at least one stride")
        require(
            all(b in (a, 2 * a) for a, b in pairwise(self.strides)),
            f"pooler: expected strides that each equal or double the one before, got "
            f"{self.strides}",
        )
        require(
            not self.levels
            or (
                len(self.levels) == len(self.strides)
                and self.levels[0] >= 0
                and list(self.levels) == sorted(set(self.levels))
            ),
            f"pooler: expected one ascending level per stride, got levels {self.levels} and "
            f"strides {self.strides}",
        )
        positive("pooler", canonical_size=(self.canonical_size,))
        not_negative(
            "pooler",
            sampling_ratio=self.sampling_ratio,
            inner_eps=self.inner_eps,
            outer_eps=self.outer_eps,
        )
        self._require_samples()

    def _require_samples(self) -> None:
        ratio = self.sampling_ratio
        require(
            ratio <= _MOST_SAMPLES,
            f"pooler: sampling_ratio must be at most {_MOST_SAMPLES}, got {ratio}",
        )
        if self.kind == "roi_align" and ratio == 0:
            require(
                self.reduce == "average" and self.placement == "centred",
                "pooler: adaptive sampling (sampling_ratio 0) needs reduce 'average' and placement "
                "'centred'; set sampling_ratio from 1 to 16",
            )
        if self.kind == "roi_warp":
            require(ratio >= 1, "pooler: roi_warp needs a sampling_ratio of at least 1, got 0")
        if self.kind == "crop_and_resize":
            require(
                ratio in (1, 2),
                f"pooler: crop_and_resize needs sampling_ratio 1 (crop to P) or 2 (crop to 2P, "
                f"then 2x2 max), got {ratio}",
            )
