"""Which of a run's discrete decisions numerical noise can change.

Greedy NMS, a top-k cut, a minimum size and the pyramid level rule map continuous numbers to
discrete results. Given bounds of the noise, each result is certain or *undecided*. This is interval
arithmetic over the decision itself, not a search for near ties anywhere in the image: a box is
undecided only where its own result can change.

Module legend: K boxes of one image, xyxy in canvas pixels; E pairs of which one box may suppress
the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.arrays import Bool, Float64, Int64
from model.spec import PoolerSpec
from runtime.compare.limits import Epsilons
from runtime.compare.matching import box_iou

# A wider band would include boxes that do not touch; only boxes thinner than a pixel reach it.
_MAX_IOU_EPS = 0.05
# A box is decoded, clipped and scaled; each step rounds a coordinate by half a float32 step.
_COORDINATE_STEPS = 8


@dataclass(frozen=True, slots=True)
class NearTie:
    """A quantity of the eager run within `epsilon` of the threshold of a decision."""

    quantity: str
    value: float
    threshold: float
    epsilon: float
    where: str

    @property
    def distance(self) -> float:
        """Distance of the value from the threshold."""
        return abs(self.value - self.threshold)

    def __str__(self) -> str:
        return (
            f"{self.quantity} {self.value:.9g} is {self.distance:.2g} from {self.threshold:.9g} "
            f"(epsilon {self.epsilon:.2g}) at {self.where}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Suppression:
    """Pairs of boxes, each array of length E: box `source` may suppress box `target`.

    `score_lead` is the source's score minus the target's (negative where noise may change the
    order); `lead_eps` and `iou_eps` bound the noise of each.
    """

    source: Int64
    target: Int64
    iou: Float64
    iou_eps: Float64
    score_lead: Float64
    lead_eps: Float64
    limit: float

    @property
    def is_certain(self) -> Bool:
        """Bool [E]: a kept source suppresses the target under any noise."""
        return (self.score_lead > self.lead_eps) & (self.iou > self.limit + self.iou_eps)


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Bool [K] each: certainly kept, certainly dropped, or undecided."""

    kept: Bool
    dropped: Bool

    @property
    def undecided(self) -> Bool:
        """Bool [K]: depends on noise."""
        return ~self.kept & ~self.dropped


def score_noise(scores: NDArray[np.floating], logit_eps: float) -> Float64:
    """Change of probabilities when their logits change by `logit_eps`; float64, same shape.

    At least one float32 step, for saturated scores.
    """
    p, step = scores.astype(np.float64), np.spacing(scores.astype(np.float32))
    return logit_eps * p * (1.0 - p) + step


def edge_noise(boxes_xyxy: NDArray[np.floating], epsilons: Epsilons) -> Float64:
    """Noise of a box's edges, float64 [K] in the boxes' own pixels.

    Regressed offsets are relative to the box, so the noise grows with its longer side.
    """
    longer: Float64 = sides_wh(boxes_xyxy).max(axis=1, initial=0.0)
    return epsilons.edge_relative.value * longer


def sides_wh(boxes_xyxy: NDArray[np.floating]) -> Float64:
    """Width and height, float64 [K, 2]."""
    boxes = boxes_xyxy.astype(np.float64)
    return boxes[:, 2:] - boxes[:, :2]


def moved_px(a_xyxy: NDArray[np.floating], b_xyxy: NDArray[np.floating]) -> Float64:
    """How far the edges of boxes moved, float64 [K], with the rounding of float32 coordinates."""
    coordinates = np.abs(a_xyxy).max(axis=1, initial=0.0).astype(np.float32)
    apart = np.abs(a_xyxy.astype(np.float64) - b_xyxy).max(axis=1, initial=0.0)
    moved: Float64 = apart + _COORDINATE_STEPS * np.spacing(coordinates)
    return moved


def class_offset_noise(boxes_xyxy: NDArray[np.floating], groups: Int64) -> Float64:
    """Rounding of edges that are shifted by group * (largest coordinate + 1) in float32.

    Float64 [K], canvas pixels. Source: torchvision's `batched_nms`, up to 1000 boxes on a CPU.
    """
    reach = float(boxes_xyxy.max(initial=0.0)) + 1.0
    largest = ((groups + 1) * reach).astype(np.float32)
    return np.spacing(largest).astype(np.float64) / 2.0


def suppression(
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    groups: Int64,
    limit: float,
    epsilons: Epsilons,
    edge_rounding_px: Float64,
) -> Suppression:
    """Return all pairs within a group in which one box may suppress the other.

    Args:
        boxes_xyxy: float [K, 4].
        scores: float [K], probabilities.
        groups: int64 [K]; only boxes of one group suppress each other.
        limit: A box is dropped at an IoU above this with a kept box of a higher score.
        epsilons: Noise of IoUs and scores.
        edge_rounding_px: float64 [K], further noise of each box's edges; zeros for none.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    eps = epsilons.nms_iou.value
    pairs = [_pairs_of_group(boxes_xyxy, m, limit, eps, edge_rounding_px) for m in members]
    empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))
    source, target, iou, iou_eps = (
        np.concatenate(parts) for parts in zip(empty, *pairs, strict=True)
    )
    noise, exact = score_noise(scores, epsilons.score_logit.value), scores.astype(np.float64)
    lead, lead_eps = exact[source] - exact[target], noise[source] + noise[target]
    may = lead >= -lead_eps
    return Suppression(
        source[may], target[may], iou[may], iou_eps[may], lead[may], lead_eps[may], limit
    )


def _pairs_of_group(
    boxes_xyxy: NDArray[np.floating],
    members: Int64,
    limit: float,
    iou_eps: float,
    edge_rounding_px: Float64,
) -> tuple[Int64, Int64, Float64, Float64]:
    boxes, rounding = boxes_xyxy[members], edge_rounding_px[members]
    iou = box_iou(boxes, boxes)
    aspect = _aspect(boxes)
    # Boxes whose IoU is near the limit have nearly the same shape. The smaller aspect of the two
    # keeps an empty box at the border from being uncertain against all others.
    eps = iou_eps * np.minimum(aspect[:, None], aspect[None]) + _iou_rounding(boxes, rounding)
    eps = np.minimum(eps, _MAX_IOU_EPS)
    near = iou >= limit - eps
    np.fill_diagonal(near, False)
    a, b = np.nonzero(near)
    return members[a], members[b], iou[a, b], eps[a, b]


def _aspect(boxes_xyxy: NDArray[np.floating]) -> Float64:
    """Longer over shorter side, [K]: noise scales with the longer, IoU with the shorter side."""
    wh = sides_wh(boxes_xyxy).clip(1e-6)
    aspect: Float64 = wh.max(axis=1) / wh.min(axis=1)
    return aspect


def _iou_rounding(boxes_xyxy: NDArray[np.floating], edge_px: Float64) -> Float64:
    """Bound of the change of each pair's IoU when every edge moves by `edge_px`, [K, K].

    An area changes by at most its perimeter times the shift, the intersection by no more than the
    smaller perimeter times it, and the union is no smaller than the larger box.
    """
    wh = sides_wh(boxes_xyxy)
    change, area = 2.0 * wh.sum(axis=1) * edge_px, wh.prod(axis=1)
    larger = np.maximum(np.maximum(area[:, None], area[None]), 1e-12)
    return np.where(change.any(), 2.0 * (change[:, None] + change[None]) / larger, 0.0)


def nms_outcomes(pairs: Suppression, is_absent: Bool, may_be_absent: Bool) -> Outcomes:
    """Result of greedy NMS for each box under all noise within the epsilons.

    A box is certainly dropped when a certainly kept box certainly suppresses it; it is certainly
    kept when every box that may suppress it is certainly dropped. Both rules only add boxes, so
    the loop ends.

    Args:
        pairs: Of `suppression`.
        is_absent: bool [K], certainly removed before NMS.
        may_be_absent: bool [K], possibly removed before NMS.
    """
    certain = pairs.is_certain
    kept, dropped = np.zeros_like(is_absent), is_absent.copy()
    while True:
        now_dropped, blocked = dropped.copy(), np.zeros_like(kept)
        now_dropped[pairs.target[certain & kept[pairs.source]]] = True
        blocked[pairs.target[~now_dropped[pairs.source]]] = True
        now_kept = ~blocked & ~may_be_absent & ~now_dropped
        if (now_dropped == dropped).all() and (now_kept == kept).all():
            return Outcomes(kept, dropped)
        kept, dropped = now_kept, now_dropped


def filter_outcomes(
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    min_size: float,
    score_threshold: float,
    epsilons: Epsilons,
    what: str,
) -> tuple[Bool, dict[int, NearTie]]:
    """Boxes that the filters before NMS certainly remove, bool [K], and those they may remove."""
    size, size_eps = sides_wh(boxes_xyxy).min(axis=1), edge_noise(boxes_xyxy, epsilons)
    exact = scores.astype(np.float64)
    score_eps = score_noise(scores, epsilons.score_logit.value)
    is_absent = (size < min_size - size_eps) | (exact < score_threshold - score_eps)
    near_ties: dict[int, NearTie] = {}
    for name, value, threshold, eps in (
        ("box side", size, min_size, size_eps),
        ("score", exact, score_threshold, score_eps),
    ):
        for box in np.flatnonzero((np.abs(value - threshold) <= eps) & ~is_absent):
            numbers = (float(value[box]), threshold, float(eps[box]))
            near_ties[int(box)] = NearTie(name, *numbers, f"{what} {box}")
    return is_absent, near_ties


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Filters, NMS and the top-k cut of one stage of a run, under noise.

    Attributes:
        what: name of a box in messages.
        top_k: number of boxes kept.
        pairs: of boxes that may suppress each other.
        outcomes: of NMS.
        filter_ties: near ties of the boxes that the filters before NMS may remove.
        min_above: int64 [K], fewest other survivors of NMS with a higher score.
        max_above: int64 [K], most of them.
    """

    what: str
    top_k: int
    pairs: Suppression
    outcomes: Outcomes
    filter_ties: Mapping[int, NearTie]
    min_above: Int64
    max_above: Int64

    @property
    def undecided(self) -> Bool:
        """Bool [K]: noise decides whether the stage returns this box."""
        near_cut = self.max_above >= self.top_k
        reachable = ~self.outcomes.dropped & (self.min_above < self.top_k)
        return reachable & (self.outcomes.undecided | near_cut)

    def near_tie(self, box: int) -> NearTie | None:
        """The near tie that leaves `box` undecided; None where it is certain."""
        if not self.undecided[box]:
            return None
        return self._nms_near_tie(box) if self.outcomes.undecided[box] else self._rank_near_tie(box)

    def _nms_near_tie(self, box: int) -> NearTie | None:
        """Follow undecided suppressors of `box` back to the near tie that they depend on."""
        queue, visited = [box], {box}
        is_certain, undecided = self.pairs.is_certain, self.outcomes.undecided
        for target in queue:
            if target in self.filter_ties:
                return self.filter_ties[target]
            into = np.flatnonzero(
                (self.pairs.target == target) & ~self.outcomes.dropped[self.pairs.source]
            )
            direct = into[~is_certain[into]]
            if direct.size:
                return _pair_near_tie(self.pairs, int(direct[0]), self.what)
            sources = self.pairs.source[into]
            new = {int(source) for source in sources if undecided[source]} - visited
            queue += sorted(new)
            visited |= new
        return None

    def _rank_near_tie(self, box: int) -> NearTie:
        rank, spread = int(self.max_above[box]) + 1, int(self.max_above[box] - self.min_above[box])
        return NearTie("lowest rank", rank, self.top_k, spread, f"{self.what} {box}")


def select(
    what: str,
    top_k: int,
    pairs: Suppression,
    scores: NDArray[np.floating],
    is_absent: Bool,
    filter_ties: Mapping[int, NearTie],
    epsilons: Epsilons,
) -> Selection:
    """Run filters, NMS and cut under noise; arguments as in `Selection` and `filter_outcomes`."""
    may_be_absent = np.zeros_like(is_absent)
    may_be_absent[list(filter_ties)] = True
    outcomes = nms_outcomes(pairs, is_absent, may_be_absent)
    bounds = rank_bounds(outcomes, scores, epsilons.score_logit.value)
    return Selection(what, top_k, pairs, outcomes, filter_ties, *bounds)


def rank_bounds(
    outcomes: Outcomes, scores: NDArray[np.floating], logit_eps: float
) -> tuple[Int64, Int64]:
    """Fewest and most other survivors with a higher score than each box; int64 [K] each."""
    exact, noise = scores.astype(np.float64), score_noise(scores, logit_eps)
    low, high = exact - noise, exact + noise
    certain, possible = np.sort(low[outcomes.kept]), np.sort(high[~outcomes.dropped])
    itself = (~outcomes.dropped).astype(np.int64)
    min_above = certain.size - np.searchsorted(certain, high, side="right")
    max_above = possible.size - np.searchsorted(possible, low, side="left") - itself
    return min_above.astype(np.int64), max_above.astype(np.int64)


def _pair_near_tie(pairs: Suppression, pair: int, what: str) -> NearTie:
    where = f"{what} {int(pairs.source[pair])} and {int(pairs.target[pair])}"
    iou, iou_eps = float(pairs.iou[pair]), float(pairs.iou_eps[pair])
    if abs(iou - pairs.limit) <= iou_eps:
        return NearTie("NMS IoU", iou, pairs.limit, iou_eps, where)
    lead, lead_eps = float(pairs.score_lead[pair]), float(pairs.lead_eps[pair])
    return NearTie("score lead", lead, 0.0, lead_eps, f"{where}, IoU {iou:.4f}")


def level_near_ties(
    boxes_xyxy: NDArray[np.floating], pooler: PoolerSpec, edge_px: Float64, what: str
) -> Iterator[tuple[int, NearTie]]:
    """Boxes whose pyramid level changes with their edges, with the argument of the level rule.

    Args:
        boxes_xyxy: float [K, 4], canvas pixels.
        pooler: has the rule.
        edge_px: float64 [K], how far the edges of each box may move.
        what: name of a box in messages.

    Source: Feature Pyramid Networks, eq. 1, with the epsilons of `PoolerSpec`.
    """
    if len(pooler.strides) < 2:
        return
    wh = sides_wh(boxes_xyxy).clip(1e-6)
    root = np.sqrt(wh.prod(axis=1)) / pooler.canonical_size
    argument = pooler.canonical_level + np.log2(root + pooler.inner_eps) + pooler.outer_eps
    eps = edge_px * (1.0 / wh).sum(axis=1) / np.log(2.0)
    lowest, highest = np.log2(pooler.strides[0]), np.log2(pooler.strides[-1])
    step = np.round(argument)
    near = (np.abs(argument - step) <= eps) & (step > lowest) & (step <= highest)
    for box in np.flatnonzero(near):
        value, threshold, epsilon = (float(numbers[box]) for numbers in (argument, step, eps))
        yield int(box), NearTie("level rule", value, threshold, epsilon, f"{what} {box}")
