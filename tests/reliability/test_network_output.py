"""Network outputs that no result may contain: an error, or a row dropped and counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.errors import ArtifactError
from runtime.detections import Detections
from runtime.predictor import Predictor
from runtime.sessions.session import Outputs, Session
from tests.reliability import tiny
from tests.reliability.changed_session import Change, ChangedSession

NAN, INF = float("nan"), float("inf")


def _value(name: str, value: float, *rows: int) -> Change:
    """One number of each of these rows."""

    def change(outputs: Outputs) -> Outputs:
        for row in rows:
            outputs[name][0, row].reshape(-1)[-1:] = value
            if outputs[name].ndim == 2:
                outputs[name][0, row] = value
        return outputs

    return change


def _all(name: str, value: float) -> Change:
    def change(outputs: Outputs) -> Outputs:
        outputs[name][...] = value
        return outputs

    return change


def _beyond_the_count(outputs: Outputs) -> Outputs:
    """Rows beyond the count may hold anything."""
    outputs["counts"][0] -= 2
    for name in ("boxes", "scores", "masks"):
        outputs[name][0, outputs["counts"][0] :] = NAN
    return outputs


# A change of eight rows, and how many of them are dropped.
DROPPED: dict[str, tuple[Change, int]] = {
    **{
        f"{name}-{value}": (_value(name, value, 2), 1)
        for name in ("boxes", "scores", "masks")
        for value in (NAN, INF, -INF)
    },
    "three-rows": (_value("scores", NAN, 0, 4, 7), 3),
    "all-scores": (_all("scores", NAN), 8),
    "all-masks": (_all("masks", INF), 8),
    "all-boxes": (_all("boxes", -INF), 8),
}


def _replace(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda outputs: outputs | {name: make(outputs[name])}


def _without(name: str) -> Change:
    return lambda outputs: {n: v for n, v in outputs.items() if n != name}


OUTPUTS = ("boxes", "scores", "labels", "masks", "counts", "nms_open", "candidates_cut")
REFUSED: dict[str, Change] = {
    **{f"no-{name}": _without(name) for name in (*OUTPUTS, "samples_cut")},
    "nothing": lambda _: {},
    "negative-count": _all("counts", -1),
    "count-beyond-the-rows": _all("counts", tiny.DETECTIONS + 1),
    "huge-count": _all("counts", 2**31 - 1),
    "count-of-another-type": _replace("counts", lambda a: a.astype(np.float32)),
    "nan-count": _replace("counts", lambda a: np.full(a.shape, NAN, np.float32)),
    "two-counts": _replace("counts", lambda a: np.concatenate((a, a))),
    "no-axis": _replace("counts", lambda a: a.reshape(())),
    "negative-counter": _all("nms_open", -3),
    "label-beyond-the-names": _all("labels", 3),
    "negative-label": _all("labels", -1),
    "huge-label": _all("labels", 2**31 - 1),
    "labels-of-another-type": _replace("labels", lambda a: a.astype(np.float32)),
    "boolean-labels": _replace("labels", lambda a: a > 0),
    "double-scores": _replace("scores", lambda a: a.astype(np.float64)),
    "half-boxes": _replace("boxes", lambda a: a.astype(np.float16)),
    "five-numbers-a-box": _replace("boxes", lambda a: np.concatenate((a, a[..., :1]), axis=2)),
    "boxes-without-a-batch": _replace("boxes", lambda a: a[0]),
    "fewer-boxes": _replace("boxes", lambda a: a[:, :-1]),
    "fewer-scores": _replace("scores", lambda a: a[:, :-1]),
    "flat-masks": _replace("masks", lambda a: a.reshape(*a.shape[:2], -1)),
    "oblong-masks": _replace("masks", lambda a: a[..., :-1]),
    "larger-masks": _replace("masks", lambda a: np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1)))),
    "text-masks": _replace("masks", lambda a: a.astype(str)),
    "another-batch": lambda outputs: {n: np.concatenate((v, v)) for n, v in outputs.items()},
    "empty-batch": lambda outputs: {n: v[:0] for n, v in outputs.items()},
}


def _predict(session: Session, change: Change) -> Detections:
    return Predictor(ChangedSession(session, change)).predict(tiny.photo())


def _is_finite(detections: Detections) -> bool:
    assert detections.mask_probs is not None
    arrays = (detections.boxes, detections.scores, detections.mask_probs)
    return all(bool(np.isfinite(a).all()) for a in arrays) and len(detections.rle()) == len(
        detections
    )


def test_rows_that_are_not_finite_are_dropped_and_counted(
    session: Session, subtests: pytest.Subtests
) -> None:
    for case, (change, dropped) in DROPPED.items():
        with subtests.test(case):
            detections = _predict(session, change)
            assert (len(detections), detections.dropped) == (tiny.DETECTIONS - dropped, dropped)
            assert _is_finite(detections)


def test_outputs_of_another_model_are_refused(session: Session, subtests: pytest.Subtests) -> None:
    for case, change in REFUSED.items():
        with subtests.test(case):
            with pytest.raises(ArtifactError, match="graph and spec do not match") as caught:
                _predict(session, change)
            assert "\n" not in str(caught.value)


def test_nothing_changed_nothing_dropped(session: Session) -> None:
    detections = _predict(session, lambda outputs: outputs)
    assert (len(detections), detections.dropped) == (tiny.DETECTIONS, 0)
    assert _is_finite(detections)


def test_rows_beyond_the_count_are_ignored(session: Session) -> None:
    detections = _predict(session, _beyond_the_count)
    assert (len(detections), detections.dropped) == (tiny.DETECTIONS - 2, 0)
    assert _is_finite(detections)
