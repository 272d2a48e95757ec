"""`choose_layers`: sensitivity, then a bisection over the groups that stay in floating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calib.calibration.photos import Photo
from calib.evaluation.agreement import LEAST_CONFIDENT, Scores, agreement, confident_rows, detect
from calib.evaluation.half_emulation import open_graph
from calib.evaluation.reference import open_reference
from calib.graph.layers import names_of
from calib.quantizer import Quantizer
from calib.search.sensitivity import Sensitivity, measure_sensitivity, searchable_groups
from model.errors import ArtifactError, UsageError
from runtime.compare.agreement import TRUTH_SCORE
from runtime.detections import Detections

# Photos of the sensitivity, which runs all of them once per group.
PHOTOS = 16
# Photos of the search, which has few candidates and can afford more.
SEARCH_PHOTOS = 48


@dataclass(frozen=True, slots=True)
class Candidate:
    """A choice of layers: the first `kept` of the ranked groups stay in floating point.

    `fraction` of all multiply-adds is in 8 bits; `nodes` are the layers in 8 bits.
    """

    kept: int
    fraction: float
    scores: Scores
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class BudgetSearch:
    """The candidates tried, by number of kept groups, and the one that was chosen."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate


def most_candidates(groups: int) -> int:
    """The most that a search tries."""
    return max(groups - 1, 1).bit_length() + 2


def search_budget(
    quantizer: Quantizer,
    sensitivity: Sensitivity,
    references: Sequence[Detections],
    photos: Sequence[Photo],
    budget: float,
    known: dict[int, Candidate] | None = None,
) -> BudgetSearch:
    """Find the smallest number of kept groups with which the loss is within the budget.

    Args:
        quantizer: prepared.
        sensitivity: of the groups.
        references: the reference's detections on these photos.
        photos: of the calibration set; run once per candidate.
        budget: points of agreement AP, box and mask, that may be lost.
        known: candidates of an earlier search by number of kept groups; filled.

    Raises:
        ArtifactError: even the least sensitive group alone exceeds the budget.
    """
    known = {} if known is None else known

    def is_within(kept: int) -> bool:
        if kept not in known:
            known[kept] = _candidate(quantizer, sensitivity, kept, references, photos)
        return known[kept].scores.loss <= budget

    # Bisection, which assumes that keeping more groups never loses more.
    low, high = -1, len(sensitivity.ranked) - 1
    if not is_within(high):
        raise ArtifactError(
            f"--budget {budget:g}: with a single group of layers in 8 bits, "
            f"'{sensitivity.ranked[-1].group.title}', {known[high].scores.loss:.2f} points are "
            f"lost already on {len(photos)} calibration photos; use a larger budget"
        )
    if is_within(0):
        high = 0
    else:
        low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_within(middle) else (middle, high)
    return BudgetSearch(tuple(known[kept] for kept in sorted(known)), known[high])


def _candidate(
    quantizer: Quantizer,
    sensitivity: Sensitivity,
    kept: int,
    references: Sequence[Detections],
    photos: Sequence[Photo],
) -> Candidate:
    context = quantizer.context
    nodes = frozenset().union(*(one.group.nodes for one in sensitivity.ranked[kept:]))
    model, placement = quantizer.quantized(nodes)
    pixels = map(context.pixels, photos)
    detections = detect(
        open_graph(model, context), pixels, context.advance, context.options.value_range
    )
    fraction = quantizer.work_fraction(names_of(placement.layers))
    return Candidate(kept, fraction, agreement(references, detections), nodes)


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Each group's sensitivity, and the search on that many `photos`."""

    sensitivity: Sensitivity
    search: BudgetSearch
    photos: int


def choose_layers(quantizer: Quantizer, budget: float) -> LayerChoice:
    """Rank groups by sensitivity, and keep the most sensitive in floating point.

    Args:
        quantizer: prepared; ONNX Runtime runs the candidates of either writer.
        budget: points of agreement AP that may be lost, of boxes and of masks.

    Raises:
        UsageError: the reference has other classes, or few confident detections on the photos.
        ArtifactError: no choice of layers is within the budget.
        MissingDependencyError: pycocotools is not installed.
    """
    context, photos = quantizer.context, quantizer.photos[:SEARCH_PHOTOS]
    first = photos[:PHOTOS]
    groups = len(searchable_groups(quantizer))
    runs = len(first) * (groups + 1) + len(photos) * (1 + most_candidates(groups))
    context.start(runs, "measuring groups of layers")
    pixels = map(context.pixels, photos)
    references = detect(
        open_reference(context), pixels, context.advance, context.options.value_range
    )
    confident = confident_rows(references)
    if confident < LEAST_CONFIDENT:
        raise UsageError(
            f"--budget: on {len(photos)} calibration photos the reference has {confident} "
            f"detections of score {TRUTH_SCORE} and more, expected {LEAST_CONFIDENT} or more; use "
            "photos with objects of the model's classes"
        )
    sensitivity = measure_sensitivity(quantizer, first)
    search = search_budget(quantizer, sensitivity, references, photos, budget)
    return LayerChoice(sensitivity, search, len(photos))
