"""Many photos, with decoding, network and results at work at the same time.

    feeder ──► pool: decode, preprocess ──► network thread ──► pool: results ──► caller

Calls leave in the order in which they came. A call begins only when there is a place for it, and
the place is free again when the caller has taken its last photo: however slow the caller or fast
the source, no more than `depth` calls are in memory.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.errors import ImageError, MaskportError, UsageError
from runtime.detections import Detections
from runtime.selection import Selection
from runtime.sources.items import Item
from runtime.sources.photos import MAX_PIXELS, Photo
from runtime.stages import Call, Stages, name_of
from runtime.whole_numbers import require_count

UInt8 = npt.NDArray[np.uint8]
# How long to wait for a source that is in the middle of its next photo when a stream is closed.
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """What became of one photo.

    Attributes:
        index: its place in the stream, from 0.
        photo: as it was given; of an array that is the stream's own copy.
        detections: what was found, in the photo's own pixels; None where `error` says why not.
        error: what was wrong with this photo.
        pixels: uint8 [h, w, 3] RGB, a fraction of the photo's size where it was decoded so; for
            `then`, and None afterwards unless the stream keeps them, or it could not be decoded.
        seconds: per stage; photos of one batch share its time.
        value: what the stream's `then` answered.
        item: what the photo came in, where the stream was given a source's items.
    """

    index: int
    photo: Photo | ImageError
    detections: Detections | None
    error: MaskportError | None
    pixels: UInt8 | None
    seconds: Mapping[str, float]
    value: Any = None
    item: Item | None = None


Then = Callable[[Streamed], Any]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream works.

    Attributes:
        batch_size: photos of one call of the network.
        workers: threads for decoding, preprocessing and results together.
        depth: calls in memory at once.
        then: run on every result in a worker thread, for what can be done beside the network:
            run lengths, drawing, writing files.
        keep_pixels: whether results still hold their photo when they are handed out.

    Raises:
        UsageError: no whole number, or one below 1.
    """

    batch_size: int = 1
    workers: int = 2
    depth: int = 6
    then: Then | None = None
    keep_pixels: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "depth"):
            require_count(name, getattr(self, name))


class _Ended:
    """Behind the last call: the source ended, or failed with `error`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


Given = Photo | ImageError | Item


@dataclass(frozen=True, slots=True)
class _Job:
    """A call, what it was made of, and the index of the first of them."""

    call: Call
    given: Sequence[Given]
    first: int
    prepared: Future[None]


_Finished = tuple[Call, "Future[list[Streamed]]"]


def stream(
    stages: Stages,
    photos: Iterable[Given],
    selection: Selection,
    options: StreamOptions,
) -> Generator[tuple[Call, list[Streamed]], None, None]:
    """Yield every call with its results, in order; threads end when the iterator is closed.

    Raises:
        Exception: what the source itself raises, after the results of all photos before.
    """
    line = _Line(stages, photos, selection, options)
    try:
        line.start()
        yield from line.results()
    finally:
        line.stop()


class _Line:
    """The threads of one stream and the queues between them."""

    def __init__(
        self,
        stages: Stages,
        photos: Iterable[Given],
        selection: Selection,
        options: StreamOptions,
    ) -> None:
        self._stages = stages
        self._photos = photos
        self._selection = selection
        self._options = options
        self._stopped = threading.Event()
        self._places = threading.Semaphore(options.depth)
        self._prepared: queue.SimpleQueue[_Job | _Ended] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[_Finished | _Ended] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(options.workers, "maskport-photos")
        # Daemons: a source that never answers must not keep the interpreter from ending.
        self._source = threading.Thread(target=self._feed, name="maskport-source", daemon=True)
        self._network = threading.Thread(target=self._run, name="maskport-network", daemon=True)

    def start(self) -> None:
        """Let the threads begin; an interrupt may come between them."""
        self._source.start()
        self._network.start()

    def results(self) -> Iterator[tuple[Call, list[Streamed]]]:
        """Calls in order; a call's place is free when the caller comes back for the next."""
        while True:
            finished = self._finished.get()
            if isinstance(finished, _Ended):
                if finished.error is not None:
                    raise finished.error
                return
            call, results = finished
            yield call, results.result()
            self._places.release()

    def stop(self) -> None:
        """Let the threads end; what is in the queues is dropped."""
        self._stopped.set()
        self._places.release()
        self._prepared.put(_Ended())
        self._pool.shutdown(wait=True, cancel_futures=True)
        # To its end: an interpreter that goes while a library computes is aborted.
        if self._network.ident is not None:
            self._network.join()
        if self._source.ident is not None:
            self._source.join(_PATIENCE_S)

    def _feed(self) -> None:
        """Take photos from the source, a call at a time, as long as there is a place."""
        error: BaseException | None = None
        source: Iterator[Given] = iter(())
        try:
            source = iter(self._photos)
            for first in itertools.count(0, self._options.batch_size):
                self._places.acquire()
                if self._stopped.is_set():
                    break
                some = [_held(one) for one in itertools.islice(source, self._options.batch_size)]
                if not some or self._stopped.is_set():
                    break
                photos = [one.photo if isinstance(one, Item) else one for one in some]
                names = [name_of(photo, first + n) for n, photo in enumerate(photos)]
                call = Call(photos, names, self._selection)
                prepared = self._pool.submit(self._stages.prepare, call)
                self._prepared.put(_Job(call, some, first, prepared))
        except BaseException as raised:  # the caller's thread raises it
            error = None if self._stopped.is_set() else raised
        finally:
            self._prepared.put(_Ended(error or _error_of_closing(source)))

    def _run(self) -> None:
        """Run the network on one call after the other."""
        while not self._stopped.is_set():
            job = self._prepared.get()
            if isinstance(job, _Ended):
                self._finished.put(job)
                return
            try:
                job.prepared.result()
                self._stages.run(job.call)
                results = self._pool.submit(self._finish, job)
            except BaseException as raised:
                self._finished.put(_Ended(raised))
                return
            self._finished.put((job.call, results))

    def _finish(self, job: _Job) -> list[Streamed]:
        self._stages.finish(job.call)
        return [self._streamed(job, place) for place in range(len(job.given))]

    def _streamed(self, job: _Job, place: int) -> Streamed:
        result = self._result(job, place)
        if self._options.then is not None and result.detections is not None:
            try:
                result = replace(result, value=self._options.then(result))
            except MaskportError as failed:
                result = replace(result, detections=None, error=_without_frames(failed))
        return result if self._options.keep_pixels else replace(result, pixels=None)

    def _result(self, job: _Job, place: int) -> Streamed:
        call, given = job.call, job.given[place]
        share = {stage: spent / len(call.photos) for stage, spent in call.seconds.items()}
        decoded, error = call.decoded.get(place), call.errors.get(place)
        return Streamed(
            index=job.first + place,
            photo=call.photos[place],
            detections=None if error is not None else call.found[place],
            error=None if error is None else _without_frames(error),
            pixels=None if decoded is None else decoded.pixels,
            seconds=share,
            item=given if isinstance(given, Item) else None,
        )


def require_several(photos: object) -> None:
    """Refuse what is one photo; an array of several, [N, h, w, 3], is not.

    Raises:
        UsageError: It is one.
    """
    is_array = isinstance(photos, np.ndarray) and photos.ndim < 4
    if is_array or isinstance(photos, str | os.PathLike | bytes | bytearray | Image.Image):
        raise UsageError(
            f"stream: expected several photos, got one {type(photos).__name__}; put it in a list"
        )
    if not isinstance(photos, Iterable):
        raise UsageError(f"stream: expected photos to iterate over, got {type(photos).__name__}")


def _held(given: Given) -> Given:
    """A photo that the source cannot change any more when it is asked for the next.

    Cameras fill one array again and again, and Pillow reads a file when its pixels are wanted.
    """
    if isinstance(given, np.ndarray) and given.size <= 3 * MAX_PIXELS:
        return given.copy()
    if isinstance(given, Image.Image):
        with suppress(Exception):  # it fails again when it is decoded, and there it has a name
            given.load()
    return given


def _error_of_closing(source: object) -> BaseException | None:
    try:
        close = getattr(source, "close", None)
        if close is not None:
            close()
    except BaseException as raised:  # the caller's thread raises it
        return raised
    return None


def _without_frames(error: MaskportError) -> MaskportError:
    """The same error; its traceback and causes would keep the photos of their frames in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
