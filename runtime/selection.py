"""Which rows of a result are wanted, and by what mask threshold they are cut out."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.errors import UsageError

if TYPE_CHECKING:
    from model.spec import ClassSpec, ModelSpec
    from runtime.detections import Detections

EVERY_OTHER = "*"


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows are kept by score, then by class, then by area; of what is left, the best.

    Attributes:
        score_threshold: least score; or least score by class name, `EVERY_OTHER` for classes that
            are not named (without it they keep the exported threshold).
        mask_threshold: probability that divides foreground from background; None takes the spec's.
        top_k: how many rows at most, by score; of equal scores the earlier row.
        classes: names of the classes that are kept.
        min_area_px: least area of the mask in the photo's pixels; of the box for a model without
            masks.
    """

    score_threshold: float | Mapping[str, float] | None = None
    mask_threshold: float | None = None
    top_k: int | None = None
    classes: Collection[str] | None = None
    min_area_px: float | None = None

    def check(self, spec: ModelSpec) -> None:
        """Refuse what this model cannot do.

        Raises:
            UsageError: a number out of its range, a score below the exported threshold (such rows
                are not in the file's answer), or a class that the model does not know.
        """
        for threshold in self._score_thresholds():
            _check_score(threshold, spec.box.score_threshold)
        named = self.score_threshold if isinstance(self.score_threshold, Mapping) else ()
        for name in (*named, *(self.classes or ())):
            if name != EVERY_OTHER or name in (self.classes or ()):
                _check_class(name, spec.classes)
        if self.classes is not None and (isinstance(self.classes, str) or not self.classes):
            raise UsageError(f"classes: expected names of classes, got {self.classes!r}")
        if self.mask_threshold is not None:
            if spec.mask is None:
                raise UsageError("mask threshold: this model has no masks; leave it out")
            if not 0.0 < self.mask_threshold < 1.0:
                raise UsageError(
                    f"mask threshold: expected more than 0 and less than 1, got "
                    f"{self.mask_threshold:g}"
                )
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k: expected at least 1, got {self.top_k}")
        if self.min_area_px is not None and not 0.0 <= self.min_area_px < float("inf"):
            raise UsageError(f"min_area_px: expected 0 or more pixels, got {self.min_area_px:g}")

    def apply(self, detections: Detections) -> Detections:
        """The wanted rows, in their order."""
        if self.mask_threshold is not None and detections.mask_probs is not None:
            detections = replace(detections, mask_threshold=self.mask_threshold)
        keep = self._wanted(detections)
        if self.min_area_px is not None and keep.any():
            kept = np.flatnonzero(keep)
            areas = detections.rows(kept).areas_px()
            keep[kept[areas < self.min_area_px]] = False
        rows = np.flatnonzero(keep)
        if self.top_k is not None and len(rows) > self.top_k:
            best = np.argsort(-detections.scores[rows], kind="stable")[: self.top_k]
            rows = np.sort(rows[best])
        return detections if len(rows) == len(detections) else detections.rows(rows)

    def _score_thresholds(self) -> list[float]:
        if self.score_threshold is None:
            return []
        if isinstance(self.score_threshold, Mapping):
            return list(self.score_threshold.values())
        return [self.score_threshold]

    def _wanted(self, detections: Detections) -> NDArray[np.bool_]:
        """Bool [D]: rows whose score and class are wanted."""
        least = self.score_threshold
        if isinstance(least, Mapping):
            other = least.get(EVERY_OTHER, -np.inf)
            limits = np.array([least.get(name, other) for name in detections.names], np.float32)
        else:
            limits = np.full(len(detections), -np.inf if least is None else least, np.float32)
        keep: NDArray[np.bool_] = detections.scores >= limits
        if self.classes is not None:
            keep &= np.array([name in self.classes for name in detections.names], np.bool_)
        return keep


def _check_score(threshold: float, exported: float) -> None:
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"score threshold: expected 0 to 1, got {threshold:g}")
    if threshold < exported:
        raise UsageError(
            f"score threshold {threshold:g} is below the exported {exported:g}; "
            f"export with --score-threshold {threshold:g}"
        )


def _check_class(name: str, classes: ClassSpec) -> None:
    if name in classes.names:
        return
    close = difflib.get_close_matches(name, classes.names, 3)
    known = ", ".join(close or classes.names[:8])
    raise UsageError(
        f"class '{name}': the model does not know it; "
        + (f"did you mean {known}?" if close else f"it knows {known} …")
    )
