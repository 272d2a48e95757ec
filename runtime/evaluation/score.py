"""The numbers of detections against labels, and what their errors cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import UsageError
from model.spec import ModelSpec
from runtime.annotations.labels import Labels
from runtime.compare.ap_losses import ErrorCost, error_costs
from runtime.compare.coco_ap import ApResult, evaluate
from runtime.compare.coco_evaluators import Evaluator, evaluator_version
from runtime.compare.coco_inputs import (
    COCO_MAX_DETECTIONS,
    COCO_SIGMAS,
    IouType,
    default_sigmas,
)
from runtime.formats.coco import CocoRow


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How detections are scored.

    Attributes:
        max_detections: per photo and class; None takes the artifact's number where it is above
            100, else 100, and COCO's 20 for keypoints.
        sigmas: of each keypoint; empty takes COCO's for 17 keypoints, else their mean.
        per_class: whether to add the numbers of each class.
        evaluator: that computes them.
    """

    max_detections: int | None = None
    sigmas: Sequence[float] = ()
    per_class: bool = False
    evaluator: Evaluator = "pycocotools"


class Scorer:
    """Scores detections of one model against labels.

    Raises:
        UsageError: another number of sigmas than the model's keypoints.
    """

    def __init__(self, labels: Labels, spec: ModelSpec, options: ScoreOptions) -> None:
        self._labels, self._options = labels, options
        self._count = 0 if spec.keypoint is None else len(spec.keypoint.names)
        self.limit, self.limit_source = _limit(spec, options.max_detections)
        if options.sigmas and len(options.sigmas) != self._count:
            raise UsageError(
                f"--sigmas: expected one for each of the model's {self._count} keypoints, got "
                f"{len(options.sigmas)}"
            )
        self._sigmas = tuple(options.sigmas) or default_sigmas(self._count)

    def scores(self, rows: Sequence[CocoRow]) -> dict[IouType, ApResult]:
        """The numbers of each IoU type."""
        return {
            iou_type: evaluate(
                self._labels.document,
                rows,
                iou_type,
                list(self._labels.photos),
                max_detections=(
                    self._options.max_detections if iou_type == "keypoints" else self.limit
                ),
                sigmas=self._sigmas,
                per_class=self._options.per_class,
                evaluator=self._options.evaluator,
            )
            for iou_type in self._labels.iou_types
        }

    def costs(self, rows: Sequence[CocoRow]) -> dict[str, ErrorCost]:
        """What each kind of error costs; of masks only if the detections have them."""
        return error_costs(
            self._labels.document,
            rows,
            list(self._labels.photos),
            with_masks="segm" in self._labels.iou_types
            and all("segmentation" in row for row in rows),
            max_detections=self.limit,
        )

    def notes(self) -> list[str]:
        """A line for each choice that changes numbers and that no option made."""
        evaluator = evaluator_version(self._options.evaluator)
        lines = [
            f"at most {self.limit} detections per photo and class ({self.limit_source}) · "
            f"{evaluator}"
        ]
        has_keypoints = "keypoints" in self._labels.iou_types
        if has_keypoints and not self._options.sigmas and self._sigmas != COCO_SIGMAS:
            lines.append(
                f"OKS with sigma {self._sigmas[0]:.4f}, the mean of COCO's, for each of the "
                f"{self._count} keypoints; set yours with --sigmas"
            )
        return lines


def _limit(spec: ModelSpec, given: int | None) -> tuple[int, str]:
    """The limit of detections per photo and class, and where it comes from."""
    if given is not None:
        return given, "--max-detections"
    if spec.box.detections > COCO_MAX_DETECTIONS:
        return spec.box.detections, "the artifact's number"
    return COCO_MAX_DETECTIONS, "COCO's number"
