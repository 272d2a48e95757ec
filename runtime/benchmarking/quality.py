"""How well artifacts detect: COCO AP against labels, or agreement with the first artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import UsageError
from runtime.artifacts.metadata import Artifact
from runtime.benchmarking.worker import Seen
from runtime.compare.agreement import agreement_ap
from runtime.compare.coco_annotations import require_common_categories, unusable_annotations
from runtime.compare.coco_ap import ApResult, IouType, evaluate


@dataclass(frozen=True, slots=True)
class Quality:
    """AP in points of 100; None where it is not defined, as without masks or without truth."""

    box: float | None
    mask: float | None


@dataclass(frozen=True, slots=True)
class Labels:
    """COCO annotations, where they came from, and the image id of every photo."""

    path: Path
    truth: Mapping[str, Any]
    image_ids: Mapping[Path, int]


def require_comparable(artifacts: Sequence[Artifact]) -> None:
    """Agreement compares labels and masks, which must mean the same in all artifacts.

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
            f"{other.path}: {wrong} of {first.path}, so that they cannot be compared; give "
            "--annotations, or measure with --only-speed"
        )


def require_labels(artifacts: Sequence[Artifact], labels: Labels) -> None:
    """Every artifact must answer some category of the annotations.

    Raises:
        UsageError: one does not.
    """
    for artifact in artifacts:
        require_common_categories(artifact.spec.classes, labels.truth, labels.path)


def against_labels(seen: Sequence[Seen], photos: Sequence[Path], labels: Labels) -> Quality:
    """COCO AP on labelled photos.

    Raises:
        UsageError: annotations that pycocotools cannot use.
        MissingDependencyError: pycocotools is not installed.
    """
    ids = [labels.image_ids[photo] for photo in photos]
    found = [
        {**row, "image_id": image_id}
        for one, image_id in zip(seen, ids, strict=True)
        for row in one.coco
    ]

    def ap(kind: IouType) -> ApResult:
        try:
            return evaluate(labels.truth, found, kind, ids)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise unusable_annotations(labels.path, error) from error

    has_masks = any(one.kept.runs is not None for one in seen)
    return Quality(_points(ap("bbox")), _points(ap("segm")) if has_masks else None)


def against_first(first: Sequence[Seen], other: Sequence[Seen]) -> Quality:
    """Agreement AP with the first artifact's detections.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    agreement = agreement_ap([one.kept for one in first], [one.kept for one in other])
    return Quality(
        _points(agreement.box), None if agreement.mask is None else _points(agreement.mask)
    )


def _points(result: ApResult) -> float | None:
    """-1 is pycocotools' way of saying that there was nothing to be found."""
    return None if result.ap < 0 else 100 * result.ap
