"""Check results against eager, and those of a noisy model against eager's own noise.

A file passes if it is within the limits. If not, eager runs again with another rounding, on the
same photos. The file may then differ from eager by a multiple of what eager differs from itself:

- in the median, the 99th percentile and the worst row of every quantity (a maximum is luck, so its
  multiple is larger);
- in the median of every class, because a fault of one class's weights moves few rows;
- in the number of rows that near ties change. Rows that eager itself loses or gains have the same
  reason.

A real fault moves every row, or every row of a class, and not only as far as rounding does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.compare.attribution import EagerTrace, explain
from runtime.compare.differences import Differences, differences
from runtime.compare.limits import (
    FP32_ONNX,
    Excess,
    Limit,
    Limits,
    StatisticExcess,
    Verdict,
    check,
)
from runtime.compare.matching import MIN_IOU, Comparison, box_iou
from runtime.compare.noise import MEDIAN, P99, Noise, widened

# A quiet model's median of these is below a tenth of its limit: R50-FPN's largest differences are
# 4e-6 and 4e-4 px. The other limits are its largest differences.
_MEDIAN_FLOOR = {"score": 0.1, "box_px": 0.1}
_MIN_CLASS_ROWS = 3
# Of a correct file; there are up to a thousand classes and quantities.
_CLASS_LUCK = 1e-5
_ROWS = Limit(
    "multiple in the number of changed rows", 3.0, "as in the median; on top of the near ties"
)
# Near ties move a keypoint to another peak: only the median of positions is rounding.
_POSITIONS = "keypoint_px"


def check_with_noise(
    comparisons: Sequence[Comparison],
    trace_of: Callable[[str], EagerTrace | None],
    measure_noise: Callable[[], Noise],
    base: Limits = FP32_ONNX,
) -> tuple[Verdict, Noise | None]:
    """Check with the limits of a quiet model, then with those of this model.

    Args:
        comparisons: of the eager run with the candidate, by photo.
        trace_of: as in `attribution.explain`.
        measure_noise: runs the eager model again on the same photos; called only after an excess.
        base: the limits of a quiet model.

    Returns:
        The verdict, and the noise that its limits allow for: None if it was not measured.
    """
    verdict = explain(check(comparisons, base), comparisons, trace_of)
    if verdict.passed:
        return verdict, None
    noise = measure_noise()
    limits = widened(base, noise)
    own = [check(rows, limits) for rows in noise.variants]
    limits = _with_near_ties(limits, own)
    verdict = explain(check(comparisons, limits), comparisons, trace_of)
    shared = [
        each
        for rows, of_variant in zip(noise.variants, own, strict=True)
        for each in _unmatched(rows, of_variant)
    ]
    verdict = _with_shared(verdict, comparisons, shared)
    explained = {(e.image, e.row) for e in verdict.excesses if e.pair >= 0 and e.near_tie}
    found = differences(comparisons, explained)
    statistics = [
        excess
        for quantity, each in found.items()
        for excess in _beyond(quantity, each, noise, base)
    ]
    return replace(verdict, statistics=tuple(statistics)), noise


def _with_near_ties(limits: Limits, own: Sequence[Verdict]) -> Limits:
    """Allow as many more near ties as eager has with itself, times the multiple."""
    rows = max((len({(e.image, e.side, e.row) for e in v.excesses}) for v in own), default=0)
    keypoints = max(
        (sum(e.keypoint >= 0 for e in v.excesses) / max(1, v.keypoints) for v in own), default=0.0
    )
    floor, fraction = limits.near_tie_floor, limits.keypoint_fraction
    detections = max((v.detections for v in own), default=0)
    base = max(floor.value, limits.near_tie_fraction.value * detections)
    return replace(
        limits,
        near_tie_floor=replace(floor, value=base + _ROWS.value * rows),
        keypoint_fraction=replace(fraction, value=fraction.value + _ROWS.value * keypoints),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Unmatched:
    """A row that another run loses or gains: `row` of eager, -1 for a gained one.

    `total` is the number of rows of that run.
    """

    image: str
    total: int
    row: int
    label: int
    box_xyxy: NDArray[np.float32]

    @classmethod
    def of(cls, excess: Excess, comparison: Comparison) -> _Unmatched:
        is_gained = excess.side == "candidate"
        rows = comparison.candidate if is_gained else comparison.reference
        row = -1 if is_gained else excess.row
        total = len(comparison.candidate)
        return cls(excess.image, total, row, excess.label, rows.boxes[excess.row])

    def is_explained_by(self, other: _Unmatched) -> bool:
        """The same row of eager, or gained ones that would match each other.

        A run that loses a row, and has another one in its place, explains no shorter result.
        """
        if (self.image, self.row, self.label) != (other.image, other.row, other.label):
            return False
        if self.row >= 0:
            return self.total >= other.total
        iou = box_iou(self.box_xyxy[None], other.box_xyxy[None])
        return self.total <= other.total and bool(iou[0, 0] >= MIN_IOU)


def _unmatched(comparisons: Sequence[Comparison], verdict: Verdict) -> Iterator[_Unmatched]:
    by_name = {comparison.image: comparison for comparison in comparisons}
    for excess in verdict.excesses:
        if excess.quantity == "unmatched":
            yield _Unmatched.of(excess, by_name[excess.image])


def _with_shared(
    verdict: Verdict, comparisons: Sequence[Comparison], shared: Sequence[_Unmatched]
) -> Verdict:
    """Explain the rows that eager itself loses or gains."""
    by_name = {comparison.image: comparison for comparison in comparisons}
    excesses = []
    for excess in verdict.excesses:
        if excess.quantity == "unmatched" and not excess.near_tie:
            own = _Unmatched.of(excess, by_name[excess.image])
            if any(own.is_explained_by(other) for other in shared):
                excess = replace(excess, near_tie="another run of eager changes this row too")
        excesses.append(excess)
    return replace(verdict, excesses=tuple(excesses))


def _beyond(
    quantity: str, found: Differences, noise: Noise, base: Limits
) -> Iterator[StatisticExcess]:
    """The statistics of one quantity that are beyond the noise's."""
    floor = _floor(quantity, base)
    least = _MEDIAN_FLOOR.get(quantity, 1.0) * floor
    tests = [("median", 0.5, _limit(MEDIAN, noise.quantile(quantity, 0.5), least))]
    if quantity != _POSITIONS:
        tests.append(("99th percentile", 0.99, _limit(P99, noise.quantile(quantity, 0.99), floor)))
    for name, fraction, limit in tests:
        yield from _above(name, quantity, found.quantile(fraction), limit)
    for label in np.unique(found.labels).tolist():
        rows = found.of_label(label)
        if rows.values.size >= _MIN_CLASS_ROWS:
            limit = _limit(MEDIAN, _class_noise(noise.of(quantity), rows, label), floor)
            yield from _above(f"median of class {label}", quantity, rows.quantile(0.5), limit)


def _above(statistic: str, quantity: str, got: float, limit: Limit) -> Iterator[StatisticExcess]:
    if not got <= limit.value:  # a NaN is an excess
        yield StatisticExcess(statistic, quantity, got, limit)


def _limit(multiple: Limit, noise: float, floor: float) -> Limit:
    reason = f"{multiple.value:g} times {noise:.2g}, eager from itself; at least {floor:g}"
    return Limit(multiple.name, max(floor, multiple.value * noise), reason)


def _class_noise(variants: Sequence[Differences], rows: Differences, label: int) -> float:
    """What the median of some rows may be by luck: theirs in a variant, or a quantile of all rows.

    A median of N rows is above a value if m of them are, N / 2 < m. If a fraction p of all rows is,
    the probability is below 2^N p^m <= (4 p)^m.
    """
    size = rows.values.size
    above = size - (size - 1) // 2
    fraction = 1.0 - _CLASS_LUCK ** (1.0 / above) / 4.0
    return max(
        (max(v.of_label(label).quantile(0.5), v.quantile(fraction)) for v in variants), default=0.0
    )


def _floor(quantity: str, base: Limits) -> float:
    """The limit of a quiet model."""
    floors: Mapping[str, Limit] = {
        "score": base.score,
        "score_logit": base.epsilons.score_logit,
        "box_px": base.box_px,
        "edge_relative": base.epsilons.edge_relative,
        "mask_probability": base.epsilons.mask_probability,
        "keypoint_px": base.keypoint_px,
        "keypoint_score": base.keypoint_score,
    }
    return floors[quantity].value
