"""Many photos, with decoding, network and results at work at the same time.

    feeder ──► pool: decode, preprocess ──► network thread ──► pool: results ──► caller

Calls leave in the order in which they came. A call begins only when there is a place for it, and
the place is free again when the caller has taken its last photo: however slow the caller or fast
the source, no more than `depth` calls are in memory.

The source is the caller's and may never answer, so its thread is left behind when a stream ends.
The others do finite work and are awaited, by the interpreter's end if not before: one that goes
while a library computes is aborted. That is why they belong to executors, which it knows.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from model.arrays import UInt8
from model.errors import ImageError, MaskportError, UsageError
from runtime.detections import Detections
from runtime.selection import Selection
from runtime.sources.items import Item, ItemName
from runtime.sources.photos import Photo, is_in_memory
from runtime.stages import Call, Stages, name_of
from runtime.whole_numbers import require_count

# How long to wait for a source that is in the middle of its next photo when a stream is closed.
_PATIENCE_S = 1.0
# Their letters, bytes or rows would be taken for photos.
_ONE_PHOTO = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """What became of one photo.

    It holds no pixels unless the stream keeps them, so that many results can be held.

    Attributes:
        index: its place in the stream, from 0.
        photo: the path or error that was given; a photo in memory is the stream's own copy, for
            `then`, and None afterwards unless the stream keeps pixels.
        detections: what was found, in the photo's own pixels; None where `error` says why not.
        error: what was wrong with this photo.
        pixels: uint8 [h, w, 3] RGB, a fraction of the photo's size where it was decoded so; for
            `then`, and None afterwards unless the stream keeps them, or it could not be decoded.
        seconds: per stage; photos of one batch share its time.
        value: what the stream's `then` answered.
        item: the photo's names, where the stream was given a source's items.
    """

    index: int
    photo: Photo | ImageError | None
    detections: Detections | None
    error: MaskportError | None
    pixels: UInt8 | None
    seconds: Mapping[str, float]
    value: Any = None
    item: ItemName | None = None


ResultCallback = Callable[[Streamed], Any]


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
        UsageError: no whole number, one below 1, or a `then` that cannot be called.
    """

    batch_size: int = 1
    workers: int = 2
    depth: int = 6
    then: ResultCallback | None = None
    keep_pixels: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "depth"):
            require_count(name, getattr(self, name))
        if self.then is not None and not callable(self.then):
            raise UsageError(f"then: expected a function, got {type(self.then).__name__}")


class _Ended:
    """Behind the last call: the source ended, or failed with `error`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


PhotoInput = Photo | ImageError | Item


@dataclass(frozen=True, slots=True)
class _Job:
    """A call, the index of its first photo, and the names of those that came in items."""

    call: Call
    first: int
    named: list[ItemName | None]


@dataclass(frozen=True, slots=True)
class Batch:
    """The results of one call, without what it was made of.

    Attributes:
        results: in order.
        found: how many photos could be used.
        seconds: spent per stage, on all of them.
        remedies: what the graph could not certify, a line each.
    """

    results: Sequence[Streamed]
    found: int
    seconds: Mapping[str, float]
    remedies: Sequence[str]


def stream(
    stages: Stages,
    photos: Iterable[PhotoInput],
    selection: Selection,
    options: StreamOptions,
) -> Generator[Batch, None, None]:
    """Yield the results of every call, in order; threads end when the iterator is closed.

    Raises:
        Exception: what the source raises, also when it is closed at its end, after the results of
            all photos before.
    """
    line = _Line(stages, photos, selection, options)
    try:
        line.start()
        yield from line.batches()
    finally:
        line.stop()


class _Line:
    """The threads of one stream and the queues between them."""

    def __init__(
        self,
        stages: Stages,
        photos: Iterable[PhotoInput],
        selection: Selection,
        options: StreamOptions,
    ) -> None:
        self._stages = stages
        self._photos = photos
        self._selection = selection
        self._options = options
        self._stopped = threading.Event()
        self._places = threading.Semaphore(options.depth)
        self._finished: queue.SimpleQueue[Future[Batch] | _Ended] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(options.workers, "maskport-photos")
        # One thread, so calls keep their order.
        self._network = ThreadPoolExecutor(1, "maskport-network")
        # A daemon: a source that never answers must not keep the interpreter from ending.
        self._source = threading.Thread(target=self._feed, name="maskport-source", daemon=True)

    def start(self) -> None:
        """Let the threads begin."""
        self._source.start()

    def batches(self) -> Iterator[Batch]:
        """Results in order; a call's place is free when the caller comes back for the next."""
        while (batch := self._next()) is not None:
            yield batch
            # Kept while the next is awaited, it would be one call more in memory.
            del batch
            self._places.release()

    def stop(self) -> None:
        """Let the threads end; what is in the queues is dropped.

        All are told before any is awaited, so that a second interrupt leaves none that goes on.
        """
        self._stopped.set()
        self._places.release()
        executors = (self._network, self._pool)
        for executor in executors:
            executor.shutdown(wait=False, cancel_futures=True)
        for executor in executors:
            executor.shutdown(wait=True)
        if self._source.ident is not None:
            self._source.join(_PATIENCE_S)

    def _next(self) -> Batch | None:
        finished = self._finished.get()
        if not isinstance(finished, _Ended):
            return finished.result()
        if finished.error is not None:
            raise finished.error
        return None

    def _feed(self) -> None:
        """Send on the source's photos and then its end, in any case: the caller waits for that."""
        error: BaseException | None = None
        source: Iterator[PhotoInput] = iter(())
        try:
            source = iter(self._photos)
            for first in itertools.count(0, self._options.batch_size):
                self._places.acquire()
                if self._stopped.is_set() or not self._take(source, first):
                    break
        except BaseException as raised:  # the caller's thread raises it
            error = raised
        end = _Ended(error or _error_of_closing(source))
        try:
            self._network.submit(self._finished.put, end)
        except RuntimeError:  # the stream has been stopped, or the interpreter ends
            self._finished.put(end)

    def _take(self, source: Iterator[PhotoInput], first: int) -> bool:
        """Take the photos of one call and send them on; whether there were any."""
        job = _Job(Call([], [], self._selection), first, [])
        try:
            # One by one: what is in memory is copied before the source is asked for the next.
            for given in itertools.islice(source, self._options.batch_size):
                self._add(job, given)
        finally:
            # Also what came before the source failed in the middle of a call.
            if job.named and not self._stopped.is_set():
                prepared = self._pool.submit(self._stages.prepare, job.call)
                self._network.submit(self._run, job, prepared)
        return bool(job.named)

    def _add(self, job: _Job, given: PhotoInput) -> None:
        if not isinstance(given, Item):
            job.named.append(None)
            self._stages.take(job.call, given, name_of(given, job.first + len(job.call.photos)))
            return
        job.named.append(ItemName(given.name, given.stem, image_id=given.image_id))
        self._stages.take(job.call, given.photo, f"{given.name}: ")

    def _run(self, job: _Job, prepared: Future[None]) -> None:
        """Run the network on one call, unless one before it failed."""
        if self._stopped.is_set():
            return
        try:
            prepared.result()
            self._stages.run(job.call)
            self._finished.put(self._pool.submit(self._finish, job))
        except BaseException as raised:  # the caller's thread raises it
            self._stopped.set()
            self._finished.put(_Ended(raised))

    def _finish(self, job: _Job) -> Batch:
        call = job.call
        self._stages.finish(call)
        results = [self._streamed(job, place) for place in range(len(call.photos))]
        return Batch(results, len(call.found), call.seconds, call.remedies)

    def _streamed(self, job: _Job, place: int) -> Streamed:
        result = self._result(job, place)
        if self._options.then is not None and result.detections is not None:
            try:
                result = replace(result, value=self._options.then(result))
            except MaskportError as failed:
                result = replace(result, detections=None, error=_without_frames(failed))
        if self._options.keep_pixels:
            return result
        photo = None if is_in_memory(result.photo) else result.photo
        return replace(result, photo=photo, pixels=None)

    def _result(self, job: _Job, place: int) -> Streamed:
        call = job.call
        share = {stage: spent / len(call.photos) for stage, spent in call.seconds.items()}
        decoded, error = call.decoded.get(place), call.errors.get(place)
        return Streamed(
            index=job.first + place,
            photo=call.photos[place],
            detections=None if error is not None else call.found[place],
            error=None if error is None else _without_frames(error),
            pixels=None if decoded is None else decoded.pixels,
            seconds=share,
            item=job.named[place],
        )


def require_several(photos: object) -> None:
    """Refuse what is one photo; an array of several, [N, h, w, 3], is not.

    Raises:
        UsageError: It is one.
    """
    is_array = isinstance(photos, np.ndarray) and photos.ndim < 4
    if is_array or isinstance(photos, _ONE_PHOTO):
        raise UsageError(
            f"stream: expected several photos, got one {type(photos).__name__}; put it in a list"
        )
    # Python also iterates over what has numbered entries only, as a data set of PyTorch.
    if not isinstance(photos, Iterable) and not hasattr(photos, "__getitem__"):
        raise UsageError(f"stream: expected photos to iterate over, got {type(photos).__name__}")


def _error_of_closing(source: object) -> BaseException | None:
    try:
        close = getattr(source, "close", None)
        if close is not None:
            close()
    except BaseException as raised:  # the caller's thread raises it
        return raised
    return None


def _without_frames(error: MaskportError) -> MaskportError:
    """The same error; its traceback and causes would keep the photos of their frames in memory.

    What a cause says and the message does not becomes a note.
    """
    cause = error.__cause__
    while cause is not None:
        said = " ".join(str(cause).split())
        if said not in str(error):
            error.add_note(f"because of {type(cause).__name__}: {said}")
        cause = cause.__cause__
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
