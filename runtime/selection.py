"""Which detections to keep, decided at run time: thresholds, classes, areas, the best few."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from model.arrays import Bool, Float32
from model.errors import UsageError

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
    """What to keep; None keeps what the network gave. Rows stay in their order.

    Applied in this order: mask threshold, scores, classes, area, top-k.

    Attributes:
        score_threshold: Keep scores of at least this. A mapping has one for each class name, and
            under "*" that of every class it does not name; without "*" those keep all their rows.
        mask_threshold: Divides foreground from background in place of the model's, in (0, 1).
        top_k: Keep the best so many rows of those that are left; of equal scores the first.
        classes: Keep rows of these class names; kept as a tuple, whatever they were given as.
        min_area_px: Keep areas of at least so many square pixels of the original image: of the
            mask, or of the box for a box-only model (`Detections.areas`).

    Raises:
        UsageError: A number that makes no sense, or classes that are no list of names.
    """

    score_threshold: float | Mapping[str, float] | None = None
    mask_threshold: float | None = None
    top_k: int | None = None
    classes: Iterable[str] | None = None
    min_area_px: float | None = None

    def __post_init__(self) -> None:
        # What was checked is kept: a generator gives its names once, a mapping may change later.
        for name, read in _READERS.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, read(value))

    def check(self, spec: ModelSpec) -> None:
        """Require that a model can serve it.

        Raises:
            UsageError: A class or masks that the model does not have, or a score threshold below
                the exported one.
        """
        first_class = int(spec.box.background == "first")
        self._require_served(spec.classes.names[first_class:], spec.mask is not None)
        exported = spec.box.score_threshold
        for name, threshold in self._by_name().items():
            if threshold < exported:
                raise UsageError(
                    f"{_score_of(name)} {threshold:g} is below the exported {exported:g}; export "
                    f"with --score-threshold {threshold:g}"
                )

    def apply(self, detections: Detections) -> Detections:
        """The rows that it keeps.

        Raises:
            UsageError: A class that is none of `Detections.class_names`, or a mask threshold where
                there are no masks.
        """
        found = detections
        self._require_served(found.class_names, found.mask_probs is not None)
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

    def thresholds(self, names: Sequence[str]) -> Float32:
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

    def _require_served(self, known: Sequence[str], has_masks: bool) -> None:
        """Refuse names that are not known, where any are, and a mask threshold without masks."""
        if known:
            named = (name for name in self._by_name() if name != OTHERS)
            _require_known("score threshold", named, known)
            _require_known("classes", self.classes or (), known)
        if self.mask_threshold is not None and not has_masks:
            raise UsageError("mask threshold: this model has no masks; leave it out")


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


def _kept(detections: Detections, keep: Bool) -> Detections:
    return detections if keep.all() else detections.take(np.flatnonzero(keep))


def _require_known(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name in known:
            continue
        # Someone who writes Dog for dog means it, too.
        lower = {k.casefold(): k for k in known}
        close = difflib.get_close_matches(name.casefold(), lower, n=3)
        some = ", ".join([*known[:_SHOWN_NAMES], *(["…"] if len(known) > _SHOWN_NAMES else [])])
        hint = f"closest: {', '.join(lower[k] for k in close)}" if close else f"it has {some}"
        raise UsageError(f"{what}: the model has no class '{name}'; {hint}")


def _score_of(name: str) -> str:
    return "score threshold" if name == OTHERS else f"score threshold of {name}"


def _read_scores(value: object) -> float | Mapping[str, float]:
    if not isinstance(value, Mapping):
        return _read_score(OTHERS, value)
    names = _read_names("score threshold", value)
    return {name: _read_score(name, value[name]) for name in names}


def _read_score(name: str, value: object) -> float:
    score = _number(_score_of(name), value)
    if not 0 <= score <= 1:
        raise UsageError(f"{_score_of(name)}: expected 0 to 1, got {score:g}")
    return score


def _read_mask_threshold(value: object) -> float:
    threshold = _number("mask threshold", value)
    if not 0 < threshold < 1:
        raise UsageError(f"mask threshold: expected a number between 0 and 1, got {threshold:g}")
    return threshold


def _read_top_k(value: object) -> int:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < 1:  # type: ignore[operator]
        raise UsageError(f"top-k: expected a whole number from 1, got {value!r}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _read_classes(value: object) -> tuple[str, ...]:
    names = _read_names("classes", value)
    if not names:
        raise UsageError("classes: expected at least one name, got none")
    return names


def _read_min_area(value: object) -> float:
    area = _number("minimal area", value)
    if area < 0:
        raise UsageError(f"minimal area: expected 0 or more pixels, got {area:g}")
    return area


def _read_names(what: str, value: Any) -> tuple[str, ...]:
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
    return tuple(map(str, names))  # NumPy's strings are a kind of their own


def _number(what: str, value: object) -> float:
    is_number = isinstance(value, int | float | np.integer | np.floating)
    try:
        number = float(value) if is_number and not isinstance(value, bool) else math.nan  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(f"{what}: expected a number, got {value!r}")
    return number


_READERS: Mapping[str, Callable[[Any], object]] = {
    "score_threshold": _read_scores,
    "mask_threshold": _read_mask_threshold,
    "top_k": _read_top_k,
    "classes": _read_classes,
    "min_area_px": _read_min_area,
}
