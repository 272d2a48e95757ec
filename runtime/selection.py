"""Selection of detections at run time: by score, class, area and rank."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from model.arrays import Bool, Float32
from model.errors import UsageError
from runtime.whole_numbers import require_count

if TYPE_CHECKING:
    from model.spec import ModelSpec
    from runtime.detections import Detections

OTHERS = "*"
_SHOWN_NAMES = 8


class SelectionOptions(TypedDict, total=False):
    """`Selection` as keyword arguments."""

    score_threshold: float | Mapping[str, float] | None
    mask_threshold: float | None
    top_k: int | None
    classes: Iterable[str] | None
    min_area_px: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows to keep; None does not restrict. Rows stay in their order.

    Applied in this order: mask threshold, scores, classes, area, top-k.

    Attributes:
        score_threshold: Keep scores of at least this; or a mapping from class name to threshold,
            with "*" for all other classes, which otherwise keep all their rows.
        mask_threshold: Replaces the model's mask threshold, in (0, 1).
        top_k: Keep this many of the remaining rows, the best; of equal scores the first.
        classes: Keep rows of these class names; stored as a tuple.
        min_area_px: Keep areas of at least this many square pixels of the original image: of the
            mask, or of the box for a box-only model (`Detections.areas`).

    Raises:
        UsageError: An invalid number, or classes that are not a list of names.
    """

    score_threshold: float | Mapping[str, float] | None = None
    mask_threshold: float | None = None
    top_k: int | None = None
    classes: Iterable[str] | None = None
    min_area_px: float | None = None

    def __post_init__(self) -> None:
        # The checked value is stored: a generator yields once, a mapping may change later.
        for name, parse in _PARSERS.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, parse(value))

    def check(self, spec: ModelSpec) -> None:
        """Require that a model supports it.

        Raises:
            UsageError: The model lacks a class or masks, or a score threshold is below the exported
                one.
        """
        first_class = int(spec.box.background == "first")
        self._require_supported(spec.classes.names[first_class:], spec.mask is not None)
        exported = spec.box.score_threshold
        for name, threshold in self._by_name().items():
            if threshold < exported:
                raise UsageError(
                    f"{_score_of(name)} {threshold:g} is below the exported {exported:g}; export "
                    f"with --score-threshold {threshold:g}"
                )

    def apply(self, detections: Detections) -> Detections:
        """The selected rows.

        Raises:
            UsageError: A class that is not in `Detections.class_names`, or a mask threshold without
                masks.
        """
        rows = detections
        self._require_supported(rows.class_names, rows.mask_probs is not None)
        if self.mask_threshold is not None:
            rows = replace(rows, mask_threshold=self.mask_threshold)
        keep = np.ones(len(rows), np.bool_)
        if self.score_threshold is not None:
            keep &= rows.scores >= self.thresholds(rows.names)
        if self.classes is not None:
            classes = set(self.classes)
            keep &= np.array([name in classes for name in rows.names], np.bool_)
        rows = _filtered(rows, keep)
        if self.min_area_px is not None:
            rows = _filtered(rows, rows.areas() >= self.min_area_px)
        if self.top_k is not None and self.top_k < len(rows):
            best = np.argsort(-rows.scores, kind="stable")[: self.top_k]
            rows = rows.take(np.sort(best))
        return rows

    def thresholds(self, names: Sequence[str]) -> Float32:
        """The score threshold of each of these classes, -inf without one.

        In float32 like the scores: a score printed as 0.7 passes 0.7.
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

    def _require_supported(self, known: Sequence[str], has_masks: bool) -> None:
        """Reject unknown class names, if any are known, and a mask threshold without masks."""
        if known:
            named = (name for name in self._by_name() if name != OTHERS)
            _require_known("score threshold", named, known)
            _require_known("classes", self.classes or (), known)
        if self.mask_threshold is not None and not has_masks:
            raise UsageError("mask threshold: this model has no masks; leave it out")


def parse_score_threshold(text: str) -> float | Mapping[str, float]:
    """Parse a command-line value: `0.5`, `person=0.7,dog=0.4` or `0.5,person=0.7`.

    A number without a name applies to all classes that are not named.

    Raises:
        UsageError: Another form, or a class named twice.
    """
    thresholds: dict[str, float] = {}
    for part in text.split(","):
        # A class name may contain an equals sign, a number does not.
        name, _, number = part.rpartition("=")
        key = name.strip() or OTHERS
        try:
            threshold = float(number)
        except ValueError as error:
            raise UsageError(
                f"score threshold: expected for instance 0.5 or 0.5,person=0.7, got '{text}'"
            ) from error
        if key in thresholds:
            which = "a threshold without a name" if key == OTHERS else key
            raise UsageError(f"score threshold: expected {which} once, got '{text}'")
        thresholds[key] = threshold
    return thresholds[OTHERS] if set(thresholds) == {OTHERS} else thresholds


def _filtered(detections: Detections, keep: Bool) -> Detections:
    return detections if keep.all() else detections.take(np.flatnonzero(keep))


def _require_known(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name in known:
            continue
        # Also suggest names in another case.
        lower = {k.casefold(): k for k in known}
        close = difflib.get_close_matches(name.casefold(), lower, n=3)
        some = ", ".join([*known[:_SHOWN_NAMES], *(["…"] if len(known) > _SHOWN_NAMES else [])])
        hint = f"closest: {', '.join(lower[k] for k in close)}" if close else f"it has {some}"
        raise UsageError(f"{what}: the model has no class '{name}'; {hint}")


def _score_of(name: str) -> str:
    return "score threshold" if name == OTHERS else f"score threshold of {name}"


def _parse_scores(value: object) -> float | Mapping[str, float]:
    def score(name: str, one: object) -> float:
        return _number(_score_of(name), one, "0 to 1", lambda number: 0 <= number <= 1)

    if not isinstance(value, Mapping):
        return score(OTHERS, value)
    return {name: score(name, value[name]) for name in _parse_names("score threshold", value)}


def _parse_mask_threshold(value: object) -> float:
    expected = "a number between 0 and 1"
    return _number("mask threshold", value, expected, lambda threshold: 0 < threshold < 1)


def _parse_top_k(value: Any) -> int:
    require_count("top-k", value)
    return int(value)


def _parse_classes(value: object) -> tuple[str, ...]:
    names = _parse_names("classes", value)
    if not names:
        raise UsageError("classes: expected at least one name, got none")
    return names


def _parse_min_area(value: object) -> float:
    return _number("minimum area", value, "0 or more pixels", lambda area: area >= 0)


def _parse_names(what: str, value: Any) -> tuple[str, ...]:
    try:
        each = None if isinstance(value, str | bytes) else iter(value)
    except TypeError:
        each = None
    if each is None:
        raise UsageError(f"{what}: expected a list of names, got {value!r}")
    names = tuple(each)
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"{what}: expected names of classes, got {name!r}")
    return tuple(map(str, names))  # also converts NumPy's strings


def _number(what: str, value: object, expected: str, is_valid: Callable[[float], bool]) -> float:
    is_number = isinstance(value, int | float | np.integer | np.floating)
    try:
        number = float(value) if is_number and not isinstance(value, bool) else math.nan  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(f"{what}: expected a number, got {value!r}")
    if not is_valid(number):
        raise UsageError(f"{what}: expected {expected}, got {number:g}")
    return number


_PARSERS: Mapping[str, Callable[[Any], object]] = {
    "score_threshold": _parse_scores,
    "mask_threshold": _parse_mask_threshold,
    "top_k": _parse_top_k,
    "classes": _parse_classes,
    "min_area_px": _parse_min_area,
}
