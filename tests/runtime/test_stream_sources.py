"""Streams over sources: reused frame buffers, items, files, and errors at the end."""

from __future__ import annotations

import gc
import io
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.errors import ArtifactError, ImageError, UsageError
from runtime.predictor import Predictor
from runtime.sources.items import Item
from runtime.sources.open import open_sources
from runtime.stream import Streamed
from tests.runtime.networks import MeanSession
from tests.runtime.sources import clips
from tests.runtime.test_stream import gray, levels

ROOT = Path(__file__).resolve().parents[2]


def test_arrays_items_and_images_may_be_reused() -> None:
    frame, picture = gray(0), Image.new("RGB", (60, 40))

    def camera() -> Iterator[NDArray[np.uint8] | Item | Image.Image]:
        for level in range(10, 30):
            frame[:] = level
            yield frame
            yield Item(f"camera#{level}", "", frame)
            picture.paste((level, level, level), (0, 0, 60, 40))
            yield picture

    expected = [level for level in range(10, 30) for _ in range(3)]
    with Predictor(MeanSession()) as predictor:
        assert levels(list(predictor.stream(camera(), batch_size=3))) == expected


def test_an_array_that_claims_more_than_memory_holds_is_not_copied() -> None:
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (100_000, 100_000, 3))
    with Predictor(MeanSession()) as predictor:
        (result,) = predictor.stream([huge])
    assert "more than" in str(result.error)


def test_a_picture_is_read_once_for_all_uses(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with Predictor(MeanSession()) as predictor:
        for _ in range(5):
            picture = Image.open(tmp_path / "a.png")
            results = list(predictor.stream([picture] * 4, workers=4))
            assert len(set(levels(results))) == 1
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with Image.open(tmp_path / "a.jpg") as picture, Predictor(MeanSession()) as predictor:
        results = list(predictor.stream([picture] * 8, workers=4))
    message = r"photo \d: damaged or truncated image \(image file is truncated"
    assert all(re.match(message, str(result.error)) for result in results)


def test_results_have_their_items(tmp_path: Path) -> None:
    for level in (30, 60):
        Image.fromarray(gray(level)).save(tmp_path / f"{level}.png")
    (tmp_path / "45.png").write_bytes(b"none")
    source = open_sources([str(tmp_path)])
    with Predictor(MeanSession()) as predictor:
        results = list(predictor.stream(source))
    items = [result.item for result in results]
    assert [item.stem for item in items if item is not None] == ["30", "45", "60"]
    assert [result.error is None for result in results] == [True, False, True]
    assert levels([results[0], results[2]]) == [30, 60]
    assert [r.photo for r in results] == [tmp_path / f"{n}.png" for n in (30, 45, 60)]


def test_sources_that_are_no_lists() -> None:
    passes = 0

    class Once:
        def __iter__(self) -> Iterator[Item]:
            nonlocal passes
            passes += 1
            return iter([Item(f"n{i}", f"s{i}", gray(i)) for i in range(1, 6)])

    with Predictor(MeanSession()) as predictor:
        results = list(predictor.stream(Once(), batch_size=2))
    assert passes == 1
    assert [result.item.name for result in results if result.item] == [f"n{i}" for i in range(1, 6)]
    assert levels(results) == [1, 2, 3, 4, 5]
    with Predictor(MeanSession()) as predictor:
        assert levels(list(predictor.stream(np.stack([gray(5), gray(6)])))) == [5, 6]

    class DataSet:
        def __getitem__(self, index: int) -> NDArray[np.uint8]:
            if index == 3:
                raise IndexError
            return gray(index + 5)

    photos: Any = DataSet()
    with Predictor(MeanSession()) as predictor:
        assert levels(list(predictor.stream(photos))) == [5, 6, 7]


class _Closing:
    """Two photos, then an error, and `close` fails."""

    def __init__(self, ends_with: type[Exception] = StopIteration) -> None:
        self._left = 2
        self._ends_with = ends_with

    def __iter__(self) -> _Closing:
        return self

    def __next__(self) -> NDArray[np.uint8]:
        if not self._left:
            raise self._ends_with("first")
        self._left -= 1
        return gray(7)

    def close(self) -> None:
        raise OSError("could not be closed")


@pytest.mark.timeout(20)
def test_an_error_of_close_ends_the_stream() -> None:
    results: list[Streamed] = []
    with Predictor(MeanSession()) as predictor:
        with pytest.raises(OSError, match="could not be closed"):
            results.extend(predictor.stream(_Closing()))
        stream = predictor.stream(_Closing())
        assert levels([next(stream), next(stream)]) == [7, 7]
        with pytest.raises(OSError, match="could not be closed"):
            next(stream)
        with pytest.raises(KeyError, match="first"):
            list(predictor.stream(_Closing(KeyError)))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_photos_before_a_failure_in_a_batch_have_results(batch_size: int) -> None:
    def camera() -> Iterator[NDArray[np.uint8]]:
        yield from (gray(11), gray(12), gray(13))
        raise RuntimeError("unplugged")

    results: list[Streamed] = []
    with Predictor(MeanSession()) as predictor, pytest.raises(RuntimeError, match="unplugged"):
        results.extend(predictor.stream(camera(), batch_size=batch_size))
    assert levels(results) == [11, 12, 13]


def test_frames_of_a_list_on_standard_input(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.mkv", [gray(level) for level in (20, 30, 40)])
    Image.fromarray(gray(50)).save(tmp_path / "50.png")
    source = open_sources(["-"], stdin=io.StringIO(f"{path}\n{tmp_path / '50.png'}\nnone.png\n"))
    with Predictor(MeanSession()) as predictor:
        results = list(predictor.stream(source, batch_size=2))
    assert levels(results[:4]) == [20, 30, 40, 50]
    assert str(results[4].error) == "standard input:3: none.png: no such file; check the path"
    items = [result.item for result in results if result.item is not None]
    assert [item.name for item in items[:3]] == [f"{path}#{n:06d}" for n in range(3)]
    assert [item.stem for item in items[2:]] == ["clip-000002", "50", "none"]


def test_pixels_are_kept_on_request() -> None:
    def frames() -> Iterator[Any]:
        yield gray(3)
        yield Item("clip#1", "clip-1", gray(4))
        yield Item("5.png", "5", Image.fromarray(gray(5)))

    with Predictor(MeanSession()) as predictor:
        light = list(predictor.stream(frames()))
        heavy = list(predictor.stream(frames(), keep_pixels=True))
    assert [(result.photo, result.pixels) for result in light] == [(None, None)] * 3
    assert not any(hasattr(result.item, "photo") for result in light)
    for result, level in zip(heavy, (3, 4, 5), strict=True):
        np.testing.assert_array_equal(result.pixels, gray(level))
        assert result.photo is result.pixels
    shapes: list[tuple[int, ...]] = []

    def look(result: Streamed) -> None:
        shapes.append(result.pixels.shape)

    with Predictor(MeanSession()) as predictor:
        assert [r.pixels for r in predictor.stream([gray(3)] * 2, then=look)] == [None, None]
        (result,) = predictor.stream([gray(3)], keep_pixels=True)
    assert shapes == [(40, 60, 3)] * 2
    assert result.pixels is not None


def test_a_batch_is_freed_while_the_stream_waits_for_the_next() -> None:
    freed, references = threading.Event(), []

    def camera() -> Iterator[NDArray[np.uint8]]:
        yield gray(3)
        freed.wait(60)

    def watch(result: Streamed) -> None:
        assert result.pixels is not None
        references.append(weakref.ref(result.pixels, lambda _: freed.set()))

    with Predictor(MeanSession()) as predictor:
        stream = predictor.stream(camera(), then=watch, keep_pixels=True)
        next(stream)
        assert list(stream) == []
    assert freed.is_set()


def test_a_stored_error_holds_no_photo() -> None:
    """Its traceback would hold the photos of its batch."""

    class Frame(np.ndarray[Any, Any]):
        """An array with weak references."""

    references: list[weakref.ref[Any]] = []

    def failing(result: Streamed) -> None:
        assert result.pixels is not None
        references.append(weakref.ref(result.pixels))
        raise ArtifactError("no room")

    with Predictor(MeanSession()) as predictor:
        results = list(predictor.stream([gray(3), np.zeros((4, 4))], batch_size=2, then=failing))
    errors = [result.error for result in results]
    assert [str(error)[:7] for error in errors] == ["no room", "photo 1"]
    for error in errors:
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
    del results
    gc.collect()
    assert [one() for one in references] == [None]


def test_an_error_has_the_message_of_its_cause(tmp_path: Path) -> None:
    def failing(_: Streamed) -> None:
        try:
            (tmp_path / "absent").read_text("utf-8")
        except OSError as error:
            raise ArtifactError("cannot be written") from error

    with Predictor(MeanSession()) as predictor:
        (result,) = predictor.stream([gray(3)], then=failing)
    assert str(result.error) == "cannot be written"
    (note,) = getattr(result.error, "__notes__", [])
    assert note.startswith("because of FileNotFoundError: [Errno 2]")


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ("photo.jpg", "got one str"),
        (Path("photo.jpg"), "got one PosixPath"),
        (b"\xff\xd8", "got one bytes"),
        (gray(1), "got one ndarray"),
        (Image.new("RGB", (4, 4)), "got one Image"),
        (7, "iterate over, got int"),
    ],
    ids=["str", "path", "bytes", "array", "picture", "number"],
)
def test_a_stream_over_one_photo_is_refused(one: Any, message: str) -> None:
    with Predictor(MeanSession()) as predictor, pytest.raises(UsageError, match=message):
        predictor.stream(one)


def test_then_must_be_a_function() -> None:
    then: Any = "rle"
    with (
        Predictor(MeanSession()) as predictor,
        pytest.raises(UsageError, match="then: expected a function, got str"),
    ):
        predictor.stream([], then=then)


def test_encoded_bytes_are_refused_with_a_hint() -> None:
    message = r"got bytes; pass an encoded photo as PIL\.Image"
    with Predictor(MeanSession()) as predictor, pytest.raises(ImageError, match=message):
        predictor.predict(b"\xff\xd8\xff")  # type: ignore[call-overload]


_CHILD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import runtime.stream
from runtime.predictor import Predictor
from tests.runtime.networks import MeanSession
from tests.runtime.test_stream import gray

runtime.stream._JOIN_TIMEOUT_S = 0.05

def say(line):
    # One write: print writes the line end separately, and another thread may write in between.
    sys.stdout.write(line + "\\n")
    sys.stdout.flush()

class Slow(MeanSession):
    def run(self, inputs):
        say("at work")
        wait()
        outputs = super().run(inputs)
        say("done")
        return outputs

results = Predictor(Slow()).stream([gray(1)] * 50)
"""
_INTERRUPTED = """
wait = sys.stdin.readline
try:
    list(results)
except KeyboardInterrupt:
    say("interrupted")
"""
_LEFT_OPEN = """
wait = lambda: time.sleep(0.2)
next(results)
say("end of the program")
"""


def test_an_interrupt_waits_for_the_running_network() -> None:
    """A thread inside a C++ library aborts an interpreter that ends before it."""
    with _child(_INTERRUPTED) as child:
        assert child.stdout.readline() == "at work\n"
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)  # if the interpreter did not wait, it would end meanwhile
        child.stdin.close()
        lines = ["at work", *child.stdout.read().splitlines()]
    assert lines.count("at work") == lines.count("done")
    assert lines[-2:] == ["done", "interrupted"]
    assert child.returncode == 0


def test_the_end_of_a_program_waits_for_the_network_of_an_open_stream() -> None:
    with _child(_LEFT_OPEN) as child:
        lines = child.stdout.read().splitlines()
    assert lines.count("at work") == lines.count("done")
    assert "end of the program" in lines
    assert child.returncode == 0


def _child(program: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD + program], cwd=ROOT, stdin=pipe, stdout=pipe, text=True
    )
