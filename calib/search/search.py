"""`choose_layers`: sensitivity, then the search, on calibration photos."""

from __future__ import annotations

from dataclasses import dataclass

from calib.evaluation.agreement import LEAST_CONFIDENT, confident_rows, detect
from calib.evaluation.reference import open_reference
from calib.quantizer import Quantizer
from calib.search.budget import BudgetSearch, most_candidates, search_budget
from calib.search.sensitivity import Sensitivity, measure_sensitivity, searchable_groups
from model.errors import UsageError
from runtime.compare.agreement import TRUTH_SCORE

# Photos of the sensitivity, which runs all of them once per group.
PHOTOS = 16
# Photos of the search, which has few candidates and can afford more.
SEARCH_PHOTOS = 48


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
    references = detect(open_reference(context), pixels, context.advance)
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
