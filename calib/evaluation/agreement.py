"""Agreement AP of detections with a reference's on the same photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.compare.agreement import TRUTH_SCORE, agreement_ap
from runtime.detections import Detections
from runtime.predictor import Predictor
from runtime.sessions.session import Session
from runtime.sources.pixel_format import Pixels, ValueRange

# With fewer confident detections of the reference, agreement AP is meaningless.
LEAST_CONFIDENT = 8


@dataclass(frozen=True, slots=True)
class Scores:
    """Agreement AP in points, 100 for an exact copy; masks are None for box-only models."""

    box: float
    box50: float
    mask: float | None
    mask50: float | None

    @property
    def lowest(self) -> float:
        """AP of boxes or of masks, whichever is less."""
        return self.box if self.mask is None else min(self.box, self.mask)

    @property
    def loss(self) -> float:
        """Points lost, of boxes or of masks, whichever is more."""
        return 100.0 - self.lowest

    @property
    def mean_loss(self) -> float:
        """Points lost, the mean of boxes and masks."""
        return 100.0 - (self.box if self.mask is None else (self.box + self.mask) / 2)

    def __str__(self) -> str:
        boxes = f"box AP {self.box:.1f} (AP50 {self.box50:.1f})"
        if self.mask is None or self.mask50 is None:
            return boxes
        return f"{boxes}, mask AP {self.mask:.1f} (AP50 {self.mask50:.1f})"


def detect(
    session: Session,
    photos: Iterable[Path | Pixels],
    advance: Callable[[int], None],
    value_range: ValueRange | None = None,
) -> list[Detections]:
    """Detections by photo; closes the session."""
    results = []
    with Predictor(session, on_uncertified="ignore", value_range=value_range) as predictor:
        for photo in photos:
            results.append(predictor.predict(photo))
            advance(1)
    return results


def confident_rows(references: Sequence[Detections]) -> int:
    """Number of detections that agreement AP takes as its ground truth."""
    return sum(int((one.scores >= TRUTH_SCORE).sum()) for one in references)


def agreement(references: Sequence[Detections], candidates: Sequence[Detections]) -> Scores:
    """Agreement with the reference's detections of score 0.3 and more; 100 if there are none.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    result = agreement_ap(references, candidates)
    mask = result.mask
    return Scores(
        _points(result.box.ap),
        _points(result.box.ap50),
        None if mask is None else _points(mask.ap),
        None if mask is None else _points(mask.ap50),
    )


def _points(ap: float) -> float:
    """COCO's AP is -1 without ground truth."""
    return 100.0 if ap < 0.0 else 100.0 * ap
