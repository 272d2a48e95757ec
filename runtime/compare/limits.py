"""Every limit and epsilon with its reason, and the check that lists what exceeds them.

Module legend: a *row* is one detection of one image; scores are probabilities; boxes are in
original-image pixels unless a name says canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import UsageError
from runtime.compare.matching import Comparison

Quantity = Literal[
    "unmatched",
    "score",
    "box_px",
    "mask_probability",
    "mask_iou",
    "keypoint_px",
    "keypoint_score",
]
Side = Literal["reference", "candidate"]


@dataclass(frozen=True, slots=True)
class Limit:
    """One number that decides a verdict, and why it is this number."""

    name: str
    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Epsilons:
    """How near to its threshold a decision of the eager run is a near tie."""

    nms_iou: Limit
    score_logit: Limit
    edge_relative: Limit
    mask_probability: Limit
    local_iou: Limit
    keypoint_logit: Limit


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one type of artifact."""

    name: str
    score: Limit
    box_px: Limit
    mask_probability: Limit
    mask_iou: Limit
    mask_iou_small: Limit
    small_mask_px: Limit
    near_tie_fraction: Limit
    near_tie_floor: Limit
    unexplained: Limit
    keypoint_px: Limit
    keypoint_score: Limit
    keypoint_fraction: Limit
    epsilons: Epsilons


_NOISE = (
    "torchvision's eager R50-FPN against itself with another convolution library, on real photos "
    "at 320/533 and 800/1333: "
)
_KEYPOINT_NOISE = (
    "torchvision's keypoint R-CNN with random weights against itself with another convolution "
    "library: "
)

FP32_EPSILONS = Epsilons(
    nms_iou=Limit(
        "NMS IoU over aspect",
        1e-5,
        _NOISE + "IoUs of 885,807 box pairs moved by up to 8.8e-6 of the longer over the shorter "
        "side of the thinner box",
    ),
    score_logit=Limit("score logit", 6e-5, _NOISE + "91,128 logits moved by up to 5.4e-5"),
    edge_relative=Limit(
        "box edge over longer side",
        1e-5,
        _NOISE + "edges of 56,030 boxes moved by up to 9.5e-6 of the box's longer side",
    ),
    mask_probability=Limit(
        "mask probability",
        1e-4,
        _NOISE + "mask cells moved by up to 3.0e-5; the pixels must also reproduce the mask",
    ),
    local_iou=Limit(
        "IoU that makes a proposal local to a row",
        0.5,
        "a proposal that overlaps a row by less than half rarely becomes it; of 1235 real rows, "
        "each removed in turn, 12 have a near tie at this value, so it explains next to nothing",
    ),
    keypoint_logit=Limit(
        "gap of two keypoint logits over their map's largest",
        1.5e-4,
        _KEYPOINT_NOISE + "maps moved by up to 5.8e-5 of their largest logit, so the gap of two "
        "pixels by up to twice that",
    ),
)

FP32_ONNX = Limits(
    name="fp32-onnx",
    score=Limit("score", 5e-5, "twelve times the difference of a prototype (4e-6)"),
    box_px=Limit("box, px", 0.01, "a prototype differed by 4e-4 px; a hundredth is invisible"),
    mask_probability=Limit(
        "mask probability",
        1e-3,
        "30 times the noise of R50-FPN (3.0e-5): another mask, even where no pixel differs",
    ),
    mask_iou=Limit("mask IoU", 0.999, "one pixel in a thousand may be at the threshold"),
    mask_iou_small=Limit(
        "mask IoU, small", 0.99, "below the area of `small_mask_px` one pixel is over 0.5 %"
    ),
    small_mask_px=Limit("small mask area, px", 200, "there one pixel of IoU is 0.005"),
    near_tie_fraction=Limit(
        "rows from near ties / detections",
        0.005,
        "4e-4 px of box noise moves 0.2 % of integer paste boxes; 0.3 % are for other near ties",
    ),
    near_tie_floor=Limit(
        "rows from near ties in a small run",
        2,
        "one near tie changes two rows, the one that enters and the one that it displaces; the "
        "fraction above would be less than one row of a photo",
    ),
    unexplained=Limit("unexplained rows", 0, "a difference that nothing explains is a defect"),
    keypoint_px=Limit(
        "keypoint, px", 0.01, "a keypoint is a pixel of its box's grid and moves with the box"
    ),
    keypoint_score=Limit(
        "keypoint score", 5e-4, _KEYPOINT_NOISE + "peaks of up to 12 moved by up to 1.2e-4"
    ),
    keypoint_fraction=Limit(
        "keypoints from near ties / keypoints",
        0.002,
        _KEYPOINT_NOISE + "4 of 27,200 peaks went to another pixel, in boxes of 70 to 1300 px",
    ),
    epsilons=FP32_EPSILONS,
)


@dataclass(frozen=True, slots=True)
class Excess:
    """One quantity of one row beyond its limit.

    Attributes:
        image: its name.
        side: of the row.
        row: index in the result of `side`; of a pair the reference row.
        pair: index in the comparison, -1 for an unmatched row.
        label: of the row.
        quantity: that is beyond its limit.
        got: the difference or IoU; of an unmatched row its score.
        limit: for `got`.
        near_tie: text of the near tie that explains it, empty where nothing does.
        keypoint: index of the keypoint, -1 for none.
    """

    image: str
    side: Side
    row: int
    pair: int
    label: int
    quantity: Quantity
    got: float
    limit: float
    near_tie: str = ""
    keypoint: int = -1

    def __str__(self) -> str:
        where = f", keypoint {self.keypoint}" if self.keypoint >= 0 else ""
        what = (
            f"unmatched, score {self.got:.6f}"
            if self.quantity == "unmatched"
            else f"{self.quantity} {self.got:.6g}, limit {self.limit:g}"
        )
        return (
            f"{self.image}: {self.side} row {self.row}, label {self.label}{where}: {what}; "
            f"{'near tie: ' + self.near_tie if self.near_tie else 'unexplained'}"
        )


@dataclass(frozen=True, slots=True)
class StatisticExcess:
    """A statistic over many rows beyond its limit, for example the median of `box_px`."""

    statistic: str
    quantity: str
    got: float
    limit: Limit

    def __str__(self) -> str:
        return (
            f"{self.statistic} of {self.quantity} {self.got:.3g}, limit {self.limit.value:.3g} "
            f"({self.limit.reason})"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """All excesses of a run, and whether they are few and explained.

    `detections` counts the reference's rows, `keypoints` those of all pairs. The worst values are
    over all pairs, None where no pair has the quantity. `statistics` is of a comparison with the
    model's own noise (`runtime.compare.noise_check`).
    """

    limits: Limits
    images: int
    detections: int
    excesses: tuple[Excess, ...]
    worst_score_diff: float | None
    worst_box_diff_px: float | None
    worst_mask_iou: float | None
    worst_keypoint_diff_px: float | None = None
    keypoints: int = 0
    statistics: tuple[StatisticExcess, ...] = ()

    def _rows(self, excesses: Sequence[Excess]) -> set[tuple[str, Side, int]]:
        return {(e.image, e.side, e.row) for e in excesses}

    @property
    def unexplained_rows(self) -> int:
        """Rows of either side with at least one excess that nothing explains."""
        return len(self._rows([e for e in self.excesses if not e.near_tie]))

    @property
    def near_tie_rows(self) -> int:
        """Rows of either side beyond a limit whose excesses are all explained.

        Rows with only keypoints beyond a limit are not counted.
        """
        rows = self._rows([e for e in self.excesses if e.keypoint < 0])
        return len(rows - self._rows([e for e in self.excesses if not e.near_tie]))

    @property
    def near_tie_keypoints(self) -> int:
        """Keypoints beyond a limit and explained, in rows that are within every other limit."""
        rows = self._rows([e for e in self.excesses if e.keypoint < 0])
        explained = {
            (e.image, e.row, e.keypoint) for e in self.excesses if e.keypoint >= 0 and e.near_tie
        }
        return sum((image, "reference", row) not in rows for image, row, _ in explained)

    @property
    def equal_detections(self) -> int:
        """Rows of the reference that are matched within every limit."""
        return self.detections - len(
            self._rows([e for e in self.excesses if e.side == "reference"])
        )

    @property
    def passed(self) -> bool:
        """Whether all counts are within their limits."""
        floor = self.limits.near_tie_floor.value
        rows = max(self.limits.near_tie_fraction.value * self.detections, floor)
        keypoints = max(self.limits.keypoint_fraction.value * self.keypoints, floor)
        return (
            self.unexplained_rows <= self.limits.unexplained.value
            and self.near_tie_rows <= rows
            and self.near_tie_keypoints <= keypoints
            and not self.statistics
        )

    def __str__(self) -> str:
        """The parity line."""
        parts = [f"{self.equal_detections} of {self.detections} detections equal"]
        if self.worst_score_diff is not None:
            parts.append(f"score {self.worst_score_diff:.1e}")
        if self.worst_box_diff_px is not None:
            parts.append(f"box {self.worst_box_diff_px:.4f} px")
        if self.worst_mask_iou is not None:
            parts.append(f"mask IoU {self.worst_mask_iou:.4f}")
        if self.worst_keypoint_diff_px is not None:
            parts.append(f"keypoint {self.worst_keypoint_diff_px:.4f} px")
        if self.near_tie_keypoints:
            parts.append(f"{self.near_tie_keypoints} of {self.keypoints} keypoints from near ties")
        if self.excesses:
            parts.append(f"{self.near_tie_rows} from near ties")
            parts.append(f"{self.unexplained_rows} unexplained")
        if self.statistics:
            parts.append(f"{len(self.statistics)} statistics beyond their limits")
        return " · ".join(parts)


def check(comparisons: Sequence[Comparison], limits: Limits = FP32_ONNX) -> Verdict:
    """List every excess of a run, not yet explained: `attribution.explain` does that.

    Raises:
        UsageError: there is nothing to check, or two images have one name.
    """
    names = [comparison.image for comparison in comparisons]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"check: expected at least one image, each under its own name, got {len(names)} "
            f"images with {len(set(names))} names; pass compare(..., image=NAME)"
        )
    extremes = [comparison.extremes for comparison in comparisons]
    return Verdict(
        limits=limits,
        images=len(names),
        detections=sum(len(comparison.reference) for comparison in comparisons),
        excesses=tuple(e for comparison in comparisons for e in _excesses(comparison, limits)),
        worst_score_diff=_worst(e.score_diff for e in extremes),
        worst_box_diff_px=_worst(e.box_diff_px for e in extremes),
        worst_mask_iou=_worst((e.mask_iou for e in extremes), np.min),
        worst_keypoint_diff_px=_worst(e.keypoint_diff_px for e in extremes),
        keypoints=sum(
            c.keypoint_diff_px.size for c in comparisons if c.keypoint_diff_px is not None
        ),
    )


def _worst(
    values: Iterable[float | None], pick: Callable[[Sequence[float]], float] = np.max
) -> float | None:
    """Of the known values; by numpy, because Python's max may drop a NaN."""
    known = [value for value in values if value is not None]
    return float(pick(known)) if known else None


def _excesses(comparison: Comparison, limits: Limits) -> Iterator[Excess]:
    yield from _unmatched(comparison)
    # Each test is the negation of "within", so that a NaN is an excess.
    yield from _above(comparison, "score", comparison.score_diff, limits.score.value)
    yield from _above(comparison, "box_px", comparison.box_diff_px, limits.box_px.value)
    if comparison.mask_prob_diff is not None:
        limit = limits.mask_probability.value
        yield from _above(comparison, "mask_probability", comparison.mask_prob_diff, limit)
    if comparison.mask_iou is not None and comparison.mask_area_px is not None:
        least = mask_limits(comparison.mask_area_px, limits)
        for pair in np.flatnonzero(~(comparison.mask_iou >= least)):
            got = comparison.mask_iou[pair]
            yield _of_pair(comparison, int(pair), "mask_iou", got, least[pair])
    if comparison.keypoint_diff_px is not None and comparison.keypoint_score_diff is not None:
        points, scores = comparison.keypoint_diff_px, comparison.keypoint_score_diff
        yield from _above(comparison, "keypoint_px", points, limits.keypoint_px.value)
        yield from _above(comparison, "keypoint_score", scores, limits.keypoint_score.value)


def _above(
    comparison: Comparison, quantity: Quantity, diff: NDArray[np.float64], limit: float
) -> Iterator[Excess]:
    """Of differences [P], or [P, J] of keypoints."""
    for pair, *keypoint in np.argwhere(~(diff <= limit)).tolist():
        excess = _of_pair(comparison, pair, quantity, diff[pair, *keypoint], limit)
        yield replace(excess, keypoint=keypoint[0]) if keypoint else excess


def mask_limits(area_px: NDArray[np.int64], limits: Limits) -> NDArray[np.float64]:
    """The smallest permitted mask IoU for each reference area in pixels."""
    small = area_px < limits.small_mask_px.value
    return np.where(small, limits.mask_iou_small.value, limits.mask_iou.value)


def _unmatched(comparison: Comparison) -> Iterator[Excess]:
    sides: tuple[Side, Side] = ("reference", "candidate")
    matching = comparison.matching
    unmatched = (matching.unmatched_reference, matching.unmatched_candidate)
    for side, indices in zip(sides, unmatched, strict=True):
        rows = comparison.reference if side == "reference" else comparison.candidate
        for row in indices:
            yield Excess(
                image=comparison.image,
                side=side,
                row=int(row),
                pair=-1,
                label=int(rows.labels[row]),
                quantity="unmatched",
                got=float(rows.scores[row]),
                limit=0.0,
            )


def _of_pair(
    comparison: Comparison, pair: int, quantity: Quantity, got: float, limit: float
) -> Excess:
    row = int(comparison.matching.pairs[pair, 0])
    return Excess(
        image=comparison.image,
        side="reference",
        row=row,
        pair=pair,
        label=int(comparison.reference.labels[row]),
        quantity=quantity,
        got=float(got),
        limit=float(limit),
    )
