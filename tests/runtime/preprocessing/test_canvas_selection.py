"""One model on several canvases: which photo goes where, and what may not be mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.errors import ImageError, UsageError
from model.spec import PreprocessSpec
from runtime.predictor import Predictor
from runtime.preprocessing.canvas_selection import choose_canvas
from tests.runtime.networks import MeanSession, spec

LANDSCAPE, PORTRAIT, SQUARE = (800, 1344), (1344, 800), (1344, 1344)
RULE = PreprocessSpec(800, 1333)


def test_the_canvas_that_keeps_the_photo_largest(subtests: pytest.Subtests) -> None:
    for case, photo_hw, canvases, chosen in [
        ("landscape", (480, 640), [LANDSCAPE, PORTRAIT], 0),
        ("portrait", (640, 480), [LANDSCAPE, PORTRAIT], 1),
        ("order does not decide", (480, 640), [PORTRAIT, LANDSCAPE], 1),
        ("square: the first named", (500, 500), [PORTRAIT, LANDSCAPE], 0),
        ("as large on both: the smaller", (480, 640), [SQUARE, LANDSCAPE], 1),
        ("square: the smaller", (500, 500), [SQUARE, LANDSCAPE, PORTRAIT], 1),
        ("panorama", (100, 4000), [PORTRAIT, (400, 1344)], 1),
        ("one pixel", (1, 1), [LANDSCAPE, PORTRAIT], 0),
        ("any size", (480, 640), [None], 0),
    ]:
        with subtests.test(case):
            assert choose_canvas(photo_hw, RULE, canvases) == chosen


def test_photos_and_sessions_without_a_canvas() -> None:
    # Two pixels high, 1,900 long: on the portrait canvas nothing is left of its height.
    assert choose_canvas((2, 1900), RULE, [PORTRAIT, LANDSCAPE]) == 1
    with pytest.raises(ImageError, match="becomes 0x1333 by the resize rule"):
        choose_canvas((1, 20000), RULE, [LANDSCAPE, PORTRAIT])
    with pytest.raises(ImageError, match="no canvas to put a photo on"):
        choose_canvas((4, 4), RULE, [])
    with pytest.raises(UsageError, match="expected an artifact to open, got none"):
        Predictor([])


def two() -> list[MeanSession]:
    return [MeanSession(canvas_hw=hw) for hw in ((32, 64), (64, 32))]


def test_photos_go_where_they_fit_and_come_back_in_order() -> None:
    sessions = two()
    wide, high = np.full((50, 90, 3), 100, np.uint8), np.full((90, 50, 3), 200, np.uint8)
    with Predictor(sessions) as predictor:
        result = predictor.predict([wide, high, high, wide, high], batch_size=4)
        streamed = list(predictor.stream([high, wide], batch_size=2))
    assert [round(255 * float(d.scores[0])) for d in result] == [100, 200, 200, 100, 200]
    assert [d.image_hw for d in result] == [(50, 90), (90, 50), (90, 50), (50, 90), (90, 50)]
    assert sessions[0].batches == [2, 1]
    assert sessions[1].batches == [2, 1, 1]
    assert [s.detections and s.detections.image_hw for s in streamed] == [(90, 50), (50, 90)]
    assert all(session.is_closed for session in sessions)


def test_each_result_equals_that_of_its_canvas_alone() -> None:
    rng = np.random.default_rng(0)
    photos = [
        rng.integers(0, 256, (*rng.integers(8, 200, 2), 3), dtype=np.uint8) for _ in range(20)
    ]
    alone = [Predictor(session) for session in two()]
    with Predictor(two()) as both:
        for photo in photos:
            which = choose_canvas(photo.shape[:2], spec().preprocess, [(32, 64), (64, 32)])
            ours, expected = both.predict(photo), alone[which].predict(photo)
            np.testing.assert_array_equal(ours.boxes, expected.boxes)
            np.testing.assert_array_equal(ours.scores, expected.scores)


def test_artifacts_of_different_models(subtests: pytest.Subtests) -> None:
    for other, says in [
        (MeanSession(canvas_hw=(64, 32), weights="v"), "other weights"),
        (MeanSession(spec(48), (64, 32)), "other options"),
        (MeanSession(), "takes photos of any size"),
        (MeanSession(canvas_hw=(32, 64)), "a second artifact for 32x64"),
    ]:
        with subtests.test(says), pytest.raises(UsageError, match=says):
            Predictor([MeanSession(canvas_hw=(32, 64)), other])


def test_opened_from_files(demo_onnx: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(demo_onnx.read_bytes())
    with Predictor.open([str(demo_onnx)], threads=1) as predictor:
        assert [a.path for a in predictor.artifacts] == [demo_onnx]
    with pytest.raises(UsageError, match="takes photos of any size"):
        Predictor.open([demo_onnx, copy], threads=1)
    with pytest.raises(UsageError, match="open the files one by one"):
        Predictor.open([demo_onnx, copy], sha256="0" * 64)
