"""Stand-in until the results branch lands."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from model.errors import UsageError
from model.spec import ModelSpec
from runtime.detections import Detections


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows."""

    score_threshold: float | Mapping[str, float] | None = None
    mask_threshold: float | None = None
    top_k: int | None = None
    classes: Collection[str] | None = None
    min_area_px: float | None = None

    def check(self, spec: ModelSpec) -> None:
        """Check."""
        exported = spec.box.score_threshold
        s = self.score_threshold
        if s is None or not isinstance(s, float | int):
            return
        if not 0.0 <= s <= 1.0:
            raise UsageError(f"score threshold: expected 0 to 1, got {s:g}")
        if s < exported:
            raise UsageError(
                f"score threshold {s:g} is below the exported {exported:g}; "
                f"export with --score-threshold {s:g}"
            )

    def apply(self, d: Detections) -> Detections:
        """Apply."""
        return d if self.score_threshold is None else d.above(float(self.score_threshold))  # type: ignore[arg-type]
