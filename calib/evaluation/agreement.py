"""How well a graph repeats a reference's detections on fixed photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.compare.agreement import TRUTH_SCORE, agreement_ap
from runtime.detections import Detections
from runtime.predictor import Predictor
from runtime.sessions.session import Session

# Fewer rows of a reference say nothing: where nothing is found, nothing is lost either.
LEAST_SURE = 8


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
    session: Session, photos: Sequence[Path], advance: Callable[[int], None]
) -> list[Detections]:
    """What a session finds on photos, in their order; the session is closed after it."""
    found = []
    with Predictor(session, on_uncertified="ignore") as predictor:
        for photo in photos:
            found.append(predictor.predict(photo))
            advance(1)
    return found


def sure_rows(references: Sequence[Detections]) -> int:
    """How many rows agreement AP has for its truth."""
    return sum(int((found.scores >= TRUTH_SCORE).sum()) for found in references)


def scores(references: Sequence[Detections], found: Sequence[Detections]) -> Scores:
    """Agreement of what was found with the reference's rows of score 0.3 and more.

    Where the reference has no such row nothing can be lost, and the answer is 100.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    agreed = agreement_ap(references, found)
    mask = agreed.mask
    return Scores(
        _points(agreed.box.ap),
        _points(agreed.box.ap50),
        None if mask is None else _points(mask.ap),
        None if mask is None else _points(mask.ap50),
    )


def _points(ap: float) -> float:
    """COCO answers -1 where there is nothing to find."""
    return 100.0 if ap < 0.0 else 100.0 * ap
