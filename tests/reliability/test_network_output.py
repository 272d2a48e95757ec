"""What a network may answer that no result may hold: an error, or a row dropped and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.errors import ArtifactError
from runtime.detections import Detections
from runtime.predictor import Predictor
from runtime.sessions.open import open_session
from runtime.sessions.session import Outputs
from tests.reliability import tiny
from tests.reliability.stand_in import Change, ChangedSession

NAN, INF = float("nan"), float("inf")


def _value(name: str, value: float, *rows: int) -> Change:
    """One number of each of these rows."""

    def change(answer: Outputs) -> Outputs:
        for row in rows:
            answer[name][0, row].reshape(-1)[-1:] = value
            if answer[name].ndim == 2:
                answer[name][0, row] = value
        return answer

    return change


def _all(name: str, value: float) -> Change:
    def change(answer: Outputs) -> Outputs:
        answer[name][...] = value
        return answer

    return change


def _beyond_the_count(answer: Outputs) -> Outputs:
    """Filling may be anything."""
    answer["counts"][0] -= 2
    for name in ("boxes", "scores", "masks"):
        answer[name][0, answer["counts"][0] :] = NAN
    return answer


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
    return lambda answer: answer | {name: make(answer[name])}


def _without(name: str) -> Change:
    return lambda answer: {n: v for n, v in answer.items() if n != name}


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
    "another-batch": lambda answer: {n: np.concatenate((v, v)) for n, v in answer.items()},
    "empty-batch": lambda answer: {n: v[:0] for n, v in answer.items()},
}


def _predict(path: Path, change: Change) -> Detections:
    with Predictor(ChangedSession(open_session(path, None, 1), change)) as predictor:
        return predictor.predict(tiny.photo())


def _is_finite(found: Detections) -> bool:
    assert found.mask_probs is not None
    arrays = (found.boxes, found.scores, found.mask_probs)
    return all(bool(np.isfinite(a).all()) for a in arrays) and len(found.rle()) == len(found)


def test_there_are_enough_cases() -> None:
    assert len(DROPPED) + len(REFUSED) >= 24


@pytest.mark.parametrize("case", DROPPED)
def test_rows_that_are_not_finite_are_dropped_and_counted(case: str, tiny_onnx: Path) -> None:
    change, dropped = DROPPED[case]
    found = _predict(tiny_onnx, change)
    assert (len(found), found.dropped) == (tiny.DETECTIONS - dropped, dropped)
    assert _is_finite(found)


@pytest.mark.parametrize("case", REFUSED)
def test_an_answer_of_another_model_is_refused(case: str, tiny_onnx: Path) -> None:
    with pytest.raises(ArtifactError, match="do not match") as caught:
        _predict(tiny_onnx, REFUSED[case])
    assert "\n" not in str(caught.value)


def test_nothing_changed_nothing_dropped(tiny_onnx: Path) -> None:
    found = _predict(tiny_onnx, lambda answer: answer)
    assert (len(found), found.dropped) == (tiny.DETECTIONS, 0)
    assert _is_finite(found)


def test_filling_is_never_looked_at(tiny_onnx: Path) -> None:
    found = _predict(tiny_onnx, _beyond_the_count)
    assert (len(found), found.dropped) == (tiny.DETECTIONS - 2, 0)
    assert _is_finite(found)
