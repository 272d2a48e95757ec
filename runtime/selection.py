"""Which detections to keep, decided at run time: thresholds, classes, areas, the best few."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from model.errors import UsageError

if TYPE_CHECKING:
    from model.spec import ModelSpec
    from runtime.detections import Detections

OTHERS = "*"
_SHOWN_NAMES = 8


class Wanted(TypedDict, total=False):
    """`Selection` as keyword arguments."""

    score_threshold: float | Mapping[str, float] | None
    mask_threshold: float | None
    top_k: int | None
    classes: Collection[str] | None
    min_area_px: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What to keep; None keeps what the network gave. Rows stay in their order.

    Applied in this order: mask threshold, scores, classes, area, top-k.

    Attributes:
        score_threshold: Keep scores of at least this. A mapping has one for each class name, and
            under "*" that of every class it does not name; without "*" those keep all their rows.
        mask_threshold: Divides foreground from background in place of the model's, in (0, 1).
        top_k: Keep the best so many rows of those that are left; of equal scores the first.
        classes: Keep rows of these class names.
        min_area_px: Keep areas of at least so many square pixels of the original image: of the
            mask, or of the box for a box-only model (`Detections.areas`).
    """

    score_threshold: float | Mapping[str, float] | None = None
    mask_threshold: float | None = None
    top_k: int | None = None
    classes: Collection[str] | None = None
    min_area_px: float | None = None

    def check(self, spec: ModelSpec) -> None:
        """Require that it makes sense for a model.

        Raises:
            UsageError: A class that the model does not have, a threshold that is out of range or
                below the exported one, or a number that makes no sense.
        """
        self._check_scores(spec)
        self._check_masks(spec)
        if self.classes is not None:
            if isinstance(self.classes, str):
                raise UsageError(f"classes: expected a list of names, got {self.classes!r}")
            if not self.classes:
                raise UsageError("classes: expected at least one name, got none")
            _require_known("classes", self.classes, spec)
        if self.top_k is not None and (not _is_whole(self.top_k) or self.top_k < 1):
            raise UsageError(f"top-k: expected a whole number from 1, got {self.top_k}")
        if self.min_area_px is not None and _number("minimal area", self.min_area_px) < 0:
            raise UsageError(f"minimal area: expected 0 or more pixels, got {self.min_area_px:g}")

    def apply(self, detections: Detections) -> Detections:
        """The rows that it keeps."""
        found = detections
        if self.mask_threshold is not None:
            found = replace(found, mask_threshold=self.mask_threshold)
        keep = np.ones(len(found), np.bool_)
        if self.score_threshold is not None:
            keep &= found.scores >= self.thresholds(found.names)
        if self.classes is not None:
            chosen = set(self.classes)
            keep &= np.array([name in chosen for name in found.names], np.bool_)
        found = _kept(found, keep)
        if self.min_area_px is not None:
            found = _kept(found, found.areas() >= self.min_area_px)
        if self.top_k is not None and self.top_k < len(found):
            best = np.argsort(-found.scores, kind="stable")[: self.top_k]
            found = found.take(np.sort(best))
        return found

    def thresholds(self, names: Sequence[str]) -> NDArray[np.float32]:
        """The score that each of these classes needs, -inf where none is asked for.

        In the scores' own precision: a score printed as 0.7 passes 0.7.
        """
        by_name = self._by_name()
        others = by_name.get(OTHERS, -math.inf)
        return np.array([by_name.get(name, others) for name in names], np.float32)

    def _by_name(self) -> Mapping[str, float]:
        if self.score_threshold is None:
            return {}
        if isinstance(self.score_threshold, Mapping):
            return self.score_threshold
        return {OTHERS: self.score_threshold}

    def _check_scores(self, spec: ModelSpec) -> None:
        by_name = self._by_name()
        _require_known("score threshold", (name for name in by_name if name != OTHERS), spec)
        exported = spec.box.score_threshold
        for name, threshold in by_name.items():
            what = "score threshold" if name == OTHERS else f"score threshold of {name}"
            if not 0 <= _number(what, threshold) <= 1:
                raise UsageError(f"{what}: expected 0 to 1, got {threshold:g}")
            if threshold < exported:
                raise UsageError(
                    f"{what} {threshold:g} is below the exported {exported:g}; export with "
                    f"--score-threshold {threshold:g}"
                )

    def _check_masks(self, spec: ModelSpec) -> None:
        if self.mask_threshold is None:
            return
        if spec.mask is None:
            raise UsageError("mask threshold: this model has no masks; leave it out")
        if not 0 < _number("mask threshold", self.mask_threshold) < 1:
            raise UsageError(
                f"mask threshold: expected a number between 0 and 1, got {self.mask_threshold:g}"
            )


def parse_score_threshold(text: str) -> float | Mapping[str, float]:
    """What a command line says: `0.5`, `person=0.7,dog=0.4` or `0.5,person=0.7`.

    A number without a name is that of every class not named.

    Raises:
        UsageError: It says something else, or one thing twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        # A class name may hold an equals sign, a number does not.
        name, _, number = part.rpartition("=")
        key = name.strip() or OTHERS
        try:
            threshold = float(number)
        except ValueError as error:
            raise UsageError(
                f"score threshold: expected for instance 0.5 or 0.5,person=0.7, got '{text}'"
            ) from error
        if key in found:
            which = "a threshold without a name" if key == OTHERS else key
            raise UsageError(f"score threshold: expected {which} once, got '{text}'")
        found[key] = threshold
    return found[OTHERS] if set(found) == {OTHERS} else found


def _kept(detections: Detections, keep: NDArray[np.bool_]) -> Detections:
    return detections if keep.all() else detections.take(np.flatnonzero(keep))


def _require_known(what: str, names: Iterable[str], spec: ModelSpec) -> None:
    known = spec.classes.names[int(spec.box.background == "first") :]
    for name in names:
        if name in known:
            continue
        # Someone who writes Dog for dog means it, too.
        lower = {k.casefold(): k for k in known}
        close = difflib.get_close_matches(str(name).casefold(), lower, n=3)
        some = ", ".join([*known[:_SHOWN_NAMES], *(["…"] if len(known) > _SHOWN_NAMES else [])])
        hint = f"closest: {', '.join(lower[k] for k in close)}" if close else f"it has {some}"
        raise UsageError(f"{what}: the model has no class '{name}' ({hint})")


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _number(what: str, value: object) -> float:
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if not is_number or isinstance(value, bool) or not math.isfinite(value):  # type: ignore[arg-type]
        raise UsageError(f"{what}: expected a number, got {value!r}")
    return float(value)  # type: ignore[arg-type]
