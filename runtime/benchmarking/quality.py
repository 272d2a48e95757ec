"""COCO AP of artifacts against labels, or agreement AP with the first artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import UsageError
from runtime.artifacts.metadata import Artifact
from runtime.benchmarking.worker import PhotoResult
from runtime.compare.agreement import agreement_ap
from runtime.compare.coco_annotations import CocoAnnotations, ImageId, ap_of, require_objects
from runtime.compare.coco_ap import ApResult


@dataclass(frozen=True, slots=True)
class Quality:
    """AP in points of 100; None where undefined, as without masks or without ground truth."""

    box: float | None
    mask: float | None


@dataclass(frozen=True, slots=True)
class Labels:
    """COCO annotations, and the image id of every photo."""

    annotations: CocoAnnotations
    image_ids: Mapping[Path, ImageId]


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


def require_labels(artifacts: Sequence[Artifact], labels: Labels) -> None:
    """Check that AP can be computed for every artifact.

    Raises:
        UsageError: see `require_objects`.
    """
    for artifact in artifacts:
        require_objects(labels.annotations, labels.image_ids.values(), artifact.spec)


def against_labels(
    results: Sequence[PhotoResult], photos: Sequence[Path], labels: Labels
) -> Quality:
    """COCO AP on labelled photos.

    Raises:
        UsageError: annotations that pycocotools cannot use.
        MissingDependencyError: pycocotools is not installed.
    """
    ids = [labels.image_ids[photo] for photo in photos]
    rows = [
        {**row, "image_id": image_id}
        for result, image_id in zip(results, ids, strict=True)
        for row in result.coco
    ]
    box = _points(ap_of(rows, labels.annotations, "bbox", ids))
    if all(result.detections.mask_rles is None for result in results):
        return Quality(box, None)
    return Quality(box, _points(ap_of(rows, labels.annotations, "segm", ids)))


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
