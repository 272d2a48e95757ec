"""Streams: everything in order, nothing piles up, nothing bad stops them, and they end."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import ArtifactError, ImageError, UsageError
from runtime.predictor import Predictor, UncertifiedResultWarning
from runtime.sessions.session import Inputs, Outputs
from runtime.stream import Streamed
from tests.runtime.networks import MeanSession

UInt8 = NDArray[np.uint8]


def gray(level: int, height: int = 40, width: int = 60) -> UInt8:
    return np.full((height, width, 3), level, np.uint8)


def levels(results: list[Streamed]) -> list[int]:
    """The gray level that each result was made of."""
    values = []
    for result in results:
        assert result.detections is not None, result.error
        values.append(round(255 * float(result.detections.scores[0])))
    return values


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("maskport-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 60
    while alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive() == []


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_equal_predict(batch_size: int, workers: int) -> None:
    rng = np.random.default_rng(batch_size)
    photos = [gray(n, *rng.integers(20, 90, 2)) for n in range(30, 67)]
    with Predictor(MeanSession()) as predictor:
        stream = predictor.stream(photos, batch_size=batch_size, workers=workers, keep_pixels=True)
        results = list(stream)
        expected = predictor.predict(photos, batch_size=batch_size)
    assert [r.index for r in results] == list(range(37))
    assert levels(results) == list(range(30, 67))
    for result, single, photo in zip(results, expected, photos, strict=True):
        assert result.error is None
        np.testing.assert_array_equal(result.detections.boxes, single.boxes)
        np.testing.assert_array_equal(result.detections.scores, single.scores)
        assert result.detections.image_hw == photo.shape[:2]
        np.testing.assert_array_equal(result.photo, photo)
        np.testing.assert_array_equal(result.pixels, photo)


def test_the_last_batch_may_be_smaller_or_empty() -> None:
    session = MeanSession()
    with Predictor(session) as predictor:
        assert len(list(predictor.stream([gray(9)] * 7, batch_size=3))) == 7
    assert sorted(session.batches) == [1, 3, 3]
    with Predictor(MeanSession()) as predictor:
        assert list(predictor.stream([])) == []


def test_bad_photos_are_results_too(tmp_path: Path) -> None:
    words = tmp_path / "words.jpg"
    words.write_text("words")
    given = [
        gray(50),
        words,
        gray(60),
        ImageError("clip.mp4#7: damaged"),
        np.zeros((4, 4)),
        gray(70),
    ]
    with Predictor(MeanSession()) as predictor:
        results = list(predictor.stream(given, batch_size=2))
    assert [r.error is None for r in results] == [True, False, True, False, False, True]
    assert levels([results[0], results[2], results[5]]) == [50, 60, 70]
    assert str(results[1].error).startswith(str(words))
    assert str(results[3].error) == "clip.mp4#7: damaged"
    assert str(results[4].error).startswith("photo 4: expected an array as uint8")
    for bad in (results[1], results[3], results[4]):
        assert bad.detections is None
        assert bad.pixels is None
        assert isinstance(bad.error, ImageError)


class _Broken(MeanSession):
    """Fails on photos that are black."""

    def run(self, feed):  # type: ignore[no-untyped-def]
        if not feed["images"].any():
            raise ArtifactError("the network failed")
        return super().run(feed)


def test_errors_of_a_network() -> None:
    with Predictor(_Broken()) as predictor:
        results = list(predictor.stream([gray(8), gray(0), gray(9)]))
    assert [str(r.error) for r in results] == ["None", "the network failed", "None"]

    class Buggy(MeanSession):
        def run(self, feed):  # type: ignore[no-untyped-def]
            raise ZeroDivisionError

    with Predictor(Buggy()) as predictor, pytest.raises(ZeroDivisionError):
        list(predictor.stream([gray(1)] * 5))


def test_a_slow_caller_holds_the_source_back() -> None:
    taken = 0

    def source() -> Iterator[UInt8]:
        nonlocal taken
        for level in range(100):
            taken += 1
            yield gray(level + 1)

    with Predictor(MeanSession()) as predictor:
        stream = predictor.stream(source(), batch_size=2, depth=3)
        assert next(stream).index == 0
        time.sleep(0.1)
        assert taken <= 2 * 3
        remaining = list(stream)
    assert [r.index for r in remaining] == list(range(1, 100))
    assert taken == 100


def test_stages_work_at_the_same_time() -> None:
    """The source, the network and the caller, each at work on a photo of its own, meet."""
    meeting = threading.Barrier(3)

    def source() -> Iterator[UInt8]:
        for level in range(6):
            if level == 2:
                meeting.wait(60)
            yield gray(level + 1)

    class Network(MeanSession):
        def run(self, inputs: Inputs) -> Outputs:
            if len(self.batches) == 1:
                meeting.wait(60)
            return super().run(inputs)

    with Predictor(Network()) as predictor:
        for result in predictor.stream(source()):
            if result.index == 0:
                meeting.wait(60)


def test_an_endless_source_is_closed_with_the_stream() -> None:
    closed = threading.Event()

    def camera() -> Iterator[UInt8]:
        try:
            while True:
                yield gray(5)
        finally:
            closed.set()

    with Predictor(MeanSession()) as predictor:
        stream = predictor.stream(camera())
        assert [next(stream).index for _ in range(10)] == list(range(10))
        stream.close()  # type: ignore[attr-defined]
        assert closed.wait(60)


def test_a_stream_that_is_left_or_closed_ends() -> None:
    with Predictor(MeanSession(seconds=0.01)) as predictor:
        for result in predictor.stream(gray(7) for _ in range(1000)):
            if result.index == 3:
                break
        del result
    predictor = Predictor(MeanSession())
    stream = predictor.stream(gray(3) for _ in range(1000))
    next(stream)
    predictor.close()
    with pytest.raises(ArtifactError, match="closed"):
        list(stream)


def test_then_runs_on_every_good_result() -> None:
    def then(result: Streamed) -> int:
        if result.index == 2:
            raise ArtifactError("the disk is full")
        return len(result.detections) + 10 * result.index

    with Predictor(MeanSession()) as predictor:
        given = [gray(1), gray(2), gray(3), ImageError("x"), gray(4)]
        results = list(predictor.stream(given, then=then))
    assert [r.value for r in results] == [1, 11, None, None, 41]
    assert [str(r.error) for r in results] == ["None", "None", "the disk is full", "x", "None"]
    assert results[2].detections is None


def test_time_is_counted_per_photo_and_in_sum() -> None:
    with Predictor(MeanSession(seconds=0.02)) as predictor:
        results = list(predictor.stream([gray(3)] * 4, batch_size=2))
        assert predictor.times.photos == 4
        summed = sum(r.seconds["network"] for r in results)
        assert summed == pytest.approx(predictor.times.seconds["network"])
    assert summed >= 2 * 0.02
    assert all(list(r.seconds) == ["decode", "preprocess", "network", "results"] for r in results)


def test_uncertified_results_warn_once_at_the_callers_line() -> None:
    def uncertain() -> MeanSession:
        session = MeanSession()
        session.nms_open = 2
        return session

    with Predictor(uncertain()) as predictor:
        with pytest.warns(UncertifiedResultWarning, match="--nms-rounds") as caught:
            list(predictor.stream([gray(3)]))
        assert caught[0].filename == __file__
    with Predictor(uncertain(), on_uncertified="raise") as strict:
        (result,) = strict.stream([gray(3)])
    assert "2 boxes of a photo undecided" in str(result.error)
    with Predictor(uncertain(), on_uncertified="ignore") as loose, warnings.catch_warnings():
        warnings.simplefilter("error")
        (result,) = loose.stream([gray(3)])
    assert not result.detections.exact


@pytest.mark.parametrize("value", [0, "2", 1.5, True, None])
@pytest.mark.parametrize("name", ["batch_size", "workers", "depth"])
def test_what_is_no_count_is_refused_at_once(name: str, value: object) -> None:
    with Predictor(MeanSession()) as predictor:
        with pytest.raises(UsageError, match=f"{name}: expected a whole number from 1, got"):
            predictor.stream([], **{name: value})  # type: ignore[call-overload]
        with pytest.raises(UsageError, match="expected 0 to 1"):
            predictor.stream([], score_threshold=7)


def test_streams_side_by_side() -> None:
    with Predictor(MeanSession()) as predictor:
        first = predictor.stream([gray(n) for n in range(1, 40)])
        second = predictor.stream([gray(n) for n in range(100, 139)], batch_size=3)
        pairs = list(zip(first, second, strict=True))
    assert levels([a for a, _ in pairs]) == list(range(1, 40))
    assert levels([b for _, b in pairs]) == list(range(100, 139))
