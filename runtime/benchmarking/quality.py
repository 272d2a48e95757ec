"""COCO AP of artifacts against labels, or agreement AP with the first artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import UsageError
from runtime.annotations.labels import Labels
from runtime.artifacts.metadata import Artifact
from runtime.benchmarking.worker import PhotoResult
from runtime.compare.agreement import agreement_ap
from runtime.compare.coco_ap import ApResult, evaluate
from runtime.compare.coco_inputs import IouType


@dataclass(frozen=True, slots=True)
class Quality:
    """AP in points of 100; None where undefined, as without masks or without ground truth."""

    box: float | None
    mask: float | None


def require_comparable(artifacts: Sequence[Artifact]) -> None:
    """Check that artifacts can be compared by agreement AP.

    Raises:
        UsageError: other classes than the first, or masks in some only.
    """
    first = artifacts[0]
    for other in artifacts[1:]:
        if other.spec.classes.names != first.spec.classes.names:
            wrong = "its class names are not those"
        elif (other.spec.mask is None) != (first.spec.mask is None):
            wrong = f"it has {'no ' if other.spec.mask is None else ''}masks, unlike those"
        else:
            continue
        raise UsageError(
            f"{other.path}: {wrong} of {first.path}, so they cannot be compared; pass "
            "--annotations or --only-speed"
        )


def against_labels(
    results: Sequence[PhotoResult], photos: Sequence[Path], labels: Labels
) -> Quality:
    """COCO AP on labeled photos, with the artifact's labels.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    image_ids = {path: image_id for image_id, path in labels.photos.items()}
    ids = [image_ids[photo] for photo in photos]
    rows = [
        {**row, "image_id": image_id}
        for result, image_id in zip(results, ids, strict=True)
        for row in result.coco
    ]

    def points(iou_type: IouType) -> float | None:
        return _points(evaluate(labels.document, rows, iou_type, ids))

    return Quality(points("bbox"), points("segm") if "segm" in labels.iou_types else None)


def against_first(first: Sequence[PhotoResult], other: Sequence[PhotoResult]) -> Quality:
    """Agreement AP with the first artifact's detections.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    agreement = agreement_ap([one.detections for one in first], [one.detections for one in other])
    return Quality(
        _points(agreement.box), None if agreement.mask is None else _points(agreement.mask)
    )


def _points(result: ApResult) -> float | None:
    """Points of 100; None for the -1 of pycocotools, which means no ground truth."""
    return None if result.ap < 0 else 100 * result.ap
