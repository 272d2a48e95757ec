"""Selection on the device, against the rows of `Predictor`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from model.errors import UsageError
from runtime.detections import Detections
from runtime.device.predictor import DevicePredictor
from runtime.predictor import Predictor
from runtime.sessions.torch import TorchSession
from tests.runtime.device import models
from tests.runtime.device.no_host_copy import torch_without_host_copies


@cache
def session(kind: str) -> TorchSession:
    return TorchSession(models.checkpoint(kind), mode="static")


def _on_host(kind: str, **options: Any) -> list[Detections]:
    predictor = Predictor(session(kind), on_uncertified="ignore")
    return predictor.predict(list(models.photos(2)), batch_size=2, **options)


@cache
def _all(kind: str) -> list[Detections]:
    return _on_host(kind)


def _between(values: np.ndarray) -> float:
    """A number that some values are below."""
    return float(np.median(values)) + 1e-6


def _by_class(kind: str) -> dict[str, Any]:
    names, scores = _all(kind)[0].names, np.concatenate([f.scores for f in _all(kind)])
    return {"score_threshold": {names[0]: float(scores.max()), "*": _between(scores)}}


OPTIONS = {
    "score": lambda kind: {"score_threshold": _between(_all(kind)[0].scores)},
    "score-by-class": _by_class,
    "the-others-keep-all": lambda kind: {"score_threshold": {_all(kind)[0].names[0]: 1.0}},
    "classes": lambda kind: {"classes": [_all(kind)[0].names[0]]},
    "top-k": lambda kind: {"top_k": 3},
    "classes-and-a-large-k": lambda kind: {
        "classes": iter([_all(kind)[0].names[0]]),
        "top_k": 10**30,
    },
    "area": lambda kind: {"min_area_px": _between(_all(kind)[0].areas())},
    "mask-threshold": lambda kind: {"mask_threshold": 0.7},
    "all-of-them": lambda kind: {
        "mask_threshold": 0.45,
        "classes": list(set(_all(kind)[0].names[:5])),
        "min_area_px": float(_all(kind)[0].areas().min()) + 1.0,
        "top_k": 2,
    },
}


@pytest.mark.parametrize(
    ("what", "kind", "library"),
    [(what, "demo", "torch") for what in OPTIONS]
    + [("all-of-them", kind, "numpy") for kind in ("demo", "detectron2", "matterport", "boxes")],
)
def test_rows_equal_the_predictors(what: str, kind: str, library: str) -> None:
    def make_options() -> dict[str, Any]:
        options = OPTIONS[what](kind)
        if kind == "boxes":
            options.pop("mask_threshold", None)
        return options

    options = make_options()
    expected = _on_host(kind, **make_options())
    photos = models.photos(2)
    frames = torch.from_numpy(photos) if library == "torch" else photos
    result = DevicePredictor(session(kind)).predict(frames, **options)
    for ours, theirs in zip(result.to_host(), expected, strict=True):
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        assert ours.names == theirs.names
        assert ours.mask_threshold == theirs.mask_threshold
        if theirs.mask_probs is not None:
            np.testing.assert_array_equal(ours.masks, theirs.masks)
    assert [int(c) for c in result.counts] == [len(f) for f in expected]
    invalid = ~np.asarray(result.valid)
    for values in (result.boxes, result.scores, result.labels, result.masks):
        assert values is None or not np.asarray(values)[invalid].any()
    if "mask_threshold" not in options and options:
        assert 0 < sum(map(len, expected)) < sum(map(len, _all(kind)))


@pytest.mark.parametrize("kind", models.KINDS)
def test_areas_equal_the_hosts(kind: str) -> None:
    result = DevicePredictor(session(kind)).predict(torch.from_numpy(models.photos(2)))
    areas, valid = result.areas().numpy(), result.valid.numpy()
    for frame, theirs in enumerate(result.to_host()):
        np.testing.assert_array_equal(areas[frame][valid[frame]], theirs.areas())
    assert not areas[~valid].any()
    assert areas.any()


@pytest.mark.parametrize("kind", ["demo", "boxes"])
def test_nothing_is_copied_to_the_host(kind: str) -> None:
    predictor = DevicePredictor(session(kind))
    frames = torch.from_numpy(models.photos(2))
    options = OPTIONS["all-of-them"](kind) | {"score_threshold": models.threshold(kind)}
    if kind == "boxes":
        del options["mask_threshold"]
    predictor.predict(torch.zeros_like(frames))
    with torch_without_host_copies() as counter:
        result = predictor.predict(frames, **options)
    assert counter.copies == []
    assert result.counts.numpy().any()


def test_selections_that_the_model_does_not_support() -> None:
    frames = torch.from_numpy(models.photos(1))
    predictor = DevicePredictor(session("demo"))
    with pytest.raises(UsageError, match="no class 'house'"):
        predictor.predict(frames, classes=["house"])
    with pytest.raises(UsageError, match="--score-threshold"):
        predictor.predict(frames, score_threshold=0.001)
    with pytest.raises(UsageError, match="no masks"):
        DevicePredictor(session("boxes")).predict(frames, mask_threshold=0.4)
