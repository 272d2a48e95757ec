"""Which outcomes of a run's decisions numerical noise can turn.

Greedy NMS, a top-k cut, a minimum size and the pyramid level rule map continuous numbers to
discrete answers. Given how far the numbers may move, every outcome is certain or *open*. This is
interval arithmetic over the decision itself, not a search for near ties anywhere in the image: a
box is open only where its own fate can turn.

Module legend: K boxes of one image, xyxy in canvas pixels; E pairs of boxes that may suppress.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.spec import PoolerSpec
from runtime.compare.limits import Epsilons
from runtime.compare.matching import Bools, Floats, Ints, box_iou

# A wider band would excuse boxes that do not even touch; only boxes thinner than a pixel reach it.
_MAX_IOU_EPS = 0.05


@dataclass(frozen=True, slots=True)
class Witness:
    """A quantity of the eager run that stands within `epsilon` of a decision."""

    quantity: str
    value: float
    decision: float
    epsilon: float
    where: str

    @property
    def distance(self) -> float:
        """How far the value stands from the decision."""
        return abs(self.value - self.decision)

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.quantity} {self.value:.9g} stands {self.distance:.2g} from {self.decision:.9g} "
            f"(epsilon {self.epsilon:.2g}) at {self.where}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Suppression:
    """Pairs of boxes, each array of length E: box `source` may suppress box `target`.

    `score_lead` is how far the source's score is above the target's (negative where noise may
    turn the order), `lead_eps` and `iou_eps` what noise can do to each.
    """

    source: Ints
    target: Ints
    iou: Floats
    iou_eps: Floats
    score_lead: Floats
    lead_eps: Floats
    limit: float

    @property
    def is_certain(self) -> Bools:
        """Bool [E]: the source suppresses the target if it is kept, whatever the noise."""
        return (self.score_lead > self.lead_eps) & (self.iou > self.limit + self.iou_eps)


@dataclass(frozen=True, slots=True, eq=False)
class Fates:
    """Bool [K] each: certain to be kept, certain to be dropped, or neither."""

    kept: Bools
    dropped: Bools

    @property
    def is_open(self) -> Bools:
        """Bool [K]: noise decides."""
        return ~self.kept & ~self.dropped


def score_noise(scores: NDArray[np.floating], logit_eps: float) -> Floats:
    """How far probabilities move when their logits move by `logit_eps`; float64, same shape.

    A saturated score moves by its float32 step, however far its logit is.
    """
    p, step = scores.astype(np.float64), np.spacing(scores.astype(np.float32))
    return logit_eps * p * (1.0 - p) + step


def edge_noise(boxes_xyxy: NDArray[np.floating], epsilons: Epsilons) -> Floats:
    """How far a box's edges move, float64 [K] in the boxes' own pixels.

    Regressed offsets are relative to the box, so the noise grows with its longer side.
    """
    longer: Floats = sides_wh(boxes_xyxy).max(axis=1, initial=0.0)
    return epsilons.edge_relative.value * longer


def sides_wh(boxes_xyxy: NDArray[np.floating]) -> Floats:
    """Width and height, float64 [K, 2]."""
    boxes = boxes_xyxy.astype(np.float64)
    return boxes[:, 2:] - boxes[:, :2]


def class_offset_noise(boxes_xyxy: NDArray[np.floating], groups: Ints) -> Floats:
    """Rounding of edges that are shifted by group * (largest coordinate + 1) in float32.

    Float64 [K], canvas pixels. Source: torchvision's `batched_nms`, up to 1000 boxes on a CPU.
    """
    reach = float(boxes_xyxy.max(initial=0.0)) + 1.0
    largest = ((groups + 1) * reach).astype(np.float32)
    return np.spacing(largest).astype(np.float64) / 2.0


def suppression(
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    groups: Ints,
    limit: float,
    epsilons: Epsilons,
    edge_rounding_px: Floats,
) -> Suppression:
    """All pairs within a group in which one box may suppress the other.

    Args:
        boxes_xyxy: float [K, 4].
        scores: float [K], probabilities.
        groups: int64 [K]; boxes of different groups never meet.
        limit: A box is dropped at an IoU above this with a kept box of a higher score.
        epsilons: Noise of IoUs and scores.
        edge_rounding_px: float64 [K], further noise of each box's edges; zeros for none.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    eps = epsilons.nms_iou.value
    found = [_pairs_of_group(boxes_xyxy, m, limit, eps, edge_rounding_px) for m in members]
    empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))
    source, target, iou, iou_eps = (
        np.concatenate(parts) for parts in zip(empty, *found, strict=True)
    )
    noise, exact = score_noise(scores, epsilons.score_logit.value), scores.astype(np.float64)
    lead, lead_eps = exact[source] - exact[target], noise[source] + noise[target]
    may = lead >= -lead_eps
    return Suppression(
        source[may], target[may], iou[may], iou_eps[may], lead[may], lead_eps[may], limit
    )


def _pairs_of_group(
    boxes_xyxy: NDArray[np.floating],
    members: Ints,
    limit: float,
    iou_eps: float,
    edge_rounding_px: Floats,
) -> tuple[Ints, Ints, Floats, Floats]:
    boxes, rounding = boxes_xyxy[members], edge_rounding_px[members]
    iou = box_iou(boxes, boxes)
    aspect = _aspect(boxes)
    # Boxes whose IoU is near the limit have nearly the same shape; the rounder of the two keeps
    # an empty box at the border from looking uncertain towards everything.
    eps = iou_eps * np.minimum(aspect[:, None], aspect[None]) + _iou_rounding(boxes, rounding)
    eps = np.minimum(eps, _MAX_IOU_EPS)
    near = iou >= limit - eps
    np.fill_diagonal(near, False)
    a, b = np.nonzero(near)
    return members[a], members[b], iou[a, b], eps[a, b]


def _aspect(boxes_xyxy: NDArray[np.floating]) -> Floats:
    """Longer over shorter side, [K]: noise follows the longer side, an IoU feels the shorter."""
    wh = sides_wh(boxes_xyxy).clip(1e-6)
    aspect: Floats = wh.max(axis=1) / wh.min(axis=1)
    return aspect


def _iou_rounding(boxes_xyxy: NDArray[np.floating], edge_px: Floats) -> Floats:
    """Bound of what moving every edge by `edge_px` does to the IoU of each pair, [K, K].

    An area changes by at most its perimeter times the shift, the intersection by no more than the
    smaller perimeter times it, and the union is no smaller than the larger box.
    """
    wh = sides_wh(boxes_xyxy)
    change, area = 2.0 * wh.sum(axis=1) * edge_px, wh.prod(axis=1)
    larger = np.maximum(np.maximum(area[:, None], area[None]), 1e-12)
    return np.where(change.any(), 2.0 * (change[:, None] + change[None]) / larger, 0.0)


def nms_fates(pairs: Suppression, is_absent: Bools, may_be_absent: Bools) -> Fates:
    """What greedy NMS does to each box under every noise within the epsilons.

    A box is dropped for certain when a box that is kept for certain suppresses it for certain;
    it is kept for certain when every box that may suppress it is dropped for certain. Both rules
    only ever add boxes, so the loop ends.

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
            return Fates(kept, dropped)
        kept, dropped = now_kept, now_dropped


def presence(
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    min_size: float,
    score_threshold: float,
    epsilons: Epsilons,
    what: str,
) -> tuple[Bools, dict[int, Witness]]:
    """Which boxes the filters before NMS certainly remove, bool [K], and which they may."""
    size, size_eps = sides_wh(boxes_xyxy).min(axis=1), edge_noise(boxes_xyxy, epsilons)
    exact = scores.astype(np.float64)
    score_eps = score_noise(scores, epsilons.score_logit.value)
    is_absent = (size < min_size - size_eps) | (exact < score_threshold - score_eps)
    uncertain: dict[int, Witness] = {}
    for name, value, decision, eps in (
        ("box side", size, min_size, size_eps),
        ("score", exact, score_threshold, score_eps),
    ):
        for box in np.flatnonzero((np.abs(value - decision) <= eps) & ~is_absent):
            where = f"{what} {box}"
            uncertain[int(box)] = Witness(name, float(value[box]), decision, float(eps[box]), where)
    return is_absent, uncertain


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """One stage of a run, filters, NMS and the cut at `quota` rows, under noise.

    `at_least` and `at_most`, int64 [K], bound how many other survivors stand above each box.
    `uncertain` holds the boxes that may be absent before NMS, each with its reason.
    """

    what: str
    quota: int
    pairs: Suppression
    fates: Fates
    uncertain: Mapping[int, Witness]
    at_least: Ints
    at_most: Ints

    @property
    def is_open(self) -> Bools:
        """Bool [K]: noise decides whether the stage answers with this box."""
        near_cut = self.at_most >= self.quota
        reachable = ~self.fates.dropped & (self.at_least < self.quota)
        return reachable & (self.fates.is_open | near_cut)

    def witness(self, box: int) -> Witness | None:
        """The near decision that leaves `box` open; None where its fate is certain."""
        if not self.is_open[box]:
            return None
        return self._nms_witness(box) if self.fates.is_open[box] else self._rank_witness(box)

    def _nms_witness(self, box: int) -> Witness | None:
        """Follow the open boxes that reach `box` back to the near decision they start from."""
        queue, seen = [box], {box}
        is_certain, is_open = self.pairs.is_certain, self.fates.is_open
        for target in queue:
            if target in self.uncertain:
                return self.uncertain[target]
            into = np.flatnonzero(
                (self.pairs.target == target) & ~self.fates.dropped[self.pairs.source]
            )
            direct = into[~is_certain[into]]
            if direct.size:
                return _pair_witness(self.pairs, int(direct[0]), self.what)
            fresh = {int(source) for source in self.pairs.source[into] if is_open[source]} - seen
            queue += sorted(fresh)
            seen |= fresh
        return None

    def _rank_witness(self, box: int) -> Witness:
        rank, spread = int(self.at_most[box]) + 1, int(self.at_most[box] - self.at_least[box])
        where = f"{self.what} {box}"
        return Witness("lowest rank", rank, self.quota, spread, where)


def select(
    what: str,
    quota: int,
    pairs: Suppression,
    scores: NDArray[np.floating],
    is_absent: Bools,
    uncertain: Mapping[int, Witness],
    epsilons: Epsilons,
) -> Selection:
    """Run filters, NMS and cut under noise; arguments as in `Selection` and `presence`."""
    may_be_absent = np.zeros_like(is_absent)
    may_be_absent[list(uncertain)] = True
    fates = nms_fates(pairs, is_absent, may_be_absent)
    bounds = rank_bounds(fates, scores, epsilons.score_logit.value)
    return Selection(what, quota, pairs, fates, uncertain, *bounds)


def rank_bounds(fates: Fates, scores: NDArray[np.floating], logit_eps: float) -> tuple[Ints, Ints]:
    """How many other survivors stand above each box at least, and at most; int64 [K] each."""
    exact, noise = scores.astype(np.float64), score_noise(scores, logit_eps)
    low, high = exact - noise, exact + noise
    surely, maybe = np.sort(low[fates.kept]), np.sort(high[~fates.dropped])
    itself = (~fates.dropped).astype(np.int64)
    at_least = surely.size - np.searchsorted(surely, high, side="right")
    at_most = maybe.size - np.searchsorted(maybe, low, side="left") - itself
    return at_least.astype(np.int64), at_most.astype(np.int64)


def _pair_witness(pairs: Suppression, pair: int, what: str) -> Witness:
    where = f"{what} {int(pairs.source[pair])} and {int(pairs.target[pair])}"
    iou, iou_eps = float(pairs.iou[pair]), float(pairs.iou_eps[pair])
    if abs(iou - pairs.limit) <= iou_eps:
        return Witness("NMS IoU", iou, pairs.limit, iou_eps, where)
    lead, lead_eps = float(pairs.score_lead[pair]), float(pairs.lead_eps[pair])
    return Witness("score lead", lead, 0.0, lead_eps, f"{where}, IoU {iou:.4f}")


def level_witnesses(
    boxes_xyxy: NDArray[np.floating], pooler: PoolerSpec, epsilons: Epsilons, what: str
) -> Iterator[tuple[int, Witness]]:
    """Boxes whose pyramid level noise can turn, with the argument of the level rule.

    Source: Feature Pyramid Networks, eq. 1, with the epsilons of `PoolerSpec`.
    """
    if len(pooler.strides) < 2:
        return
    wh = sides_wh(boxes_xyxy).clip(1e-6)
    root = np.sqrt(wh.prod(axis=1)) / pooler.canonical_size
    argument = pooler.canonical_level + np.log2(root + pooler.inner_eps) + pooler.outer_eps
    eps = edge_noise(boxes_xyxy, epsilons) * (1.0 / wh).sum(axis=1) / np.log(2.0)
    lowest, highest = np.log2(pooler.strides[0]), np.log2(pooler.strides[-1])
    step = np.round(argument)
    near = (np.abs(argument - step) <= eps) & (step > lowest) & (step <= highest)
    for box in np.flatnonzero(near):
        value, decision, epsilon = (float(numbers[box]) for numbers in (argument, step, eps))
        yield int(box), Witness("level rule", value, decision, epsilon, f"{what} {box}")
