"""Many photos, with decoding, network and results running at the same time.

    source thread ─► pool: decode, preprocess ─► network thread ─► pool: results ─► caller

Calls leave in the order in which they came. At most `depth` calls are in memory, however slow the
caller or fast the source: a call starts when a slot is free, and the slot is released when the
caller has taken the call's last photo.

The source is the caller's and may block forever, so its thread is a daemon and is abandoned when a
stream ends. The other threads do finite work and belong to executors, which the interpreter joins
at exit: a thread that dies inside a library call would abort the process.
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

from model.errors import ImageError, MaskportError, UsageError
from runtime.detections import Detections
from runtime.selection import Selection
from runtime.sources.items import Item, ItemName
from runtime.sources.photos import Photo, is_in_memory
from runtime.sources.pixel_format import Pixels
from runtime.stages import Call, Stages, name_of
from runtime.whole_numbers import require_count

# How long a closed stream waits for a source that is producing its next photo.
_JOIN_TIMEOUT_S = 1.0
# Iterables whose letters, bytes or rows would be taken for photos.
_ONE_PHOTO = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)

PhotoInput = Photo | ImageError | Item


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """The result of one photo.

    It holds no pixels unless the stream keeps them, so a list of results stays small.

    Attributes:
        index: of the photo in the stream, from 0.
        photo: the caller's path or error; a photo in memory is the stream's own copy, for `then`,
            and None afterwards unless the stream keeps pixels.
        detections: in the photo's own pixels; None if there is an `error`.
        error: why the photo could not be used.
        pixels: uint8 [h, w, 3] RGB, at a fraction of the photo's size if it was decoded so; or the
            model's bands as stored, [h, w, C]; for `then`, and None afterwards unless the
            stream keeps them. None if decoding failed.
        seconds: by stage; the photos of a batch share its time equally.
        value: what the stream's `then` returned.
        item: the photo's names, if the source gave items.
    """

    index: int
    photo: Photo | ImageError | None
    detections: Detections | None
    error: MaskportError | None
    pixels: Pixels | None
    seconds: Mapping[str, float]
    value: Any = None
    item: ItemName | None = None


ResultCallback = Callable[[Streamed], Any]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Options of a stream.

    Attributes:
        batch_size: photos of one call of the network.
        workers: threads for decoding, preprocessing and results together.
        depth: calls in memory at once.
        then: called with every result in a worker thread, for work that can overlap with the
            network: run lengths, drawing, writing files.
        keep_pixels: whether results still hold their photo when they are handed out.

    Raises:
        UsageError: a number below 1, or a `then` that cannot be called.
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


@dataclass(frozen=True, slots=True)
class _End:
    """Queued behind the last call; `error` if the source or a stage failed."""

    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """A call, the index of its first photo, and the names of photos that came as items."""

    call: Call
    first: int
    names: list[ItemName | None]


@dataclass(frozen=True, slots=True)
class Batch:
    """The results of one call, without its inputs.

    Attributes:
        results: in order.
        photos: number of photos that could be used.
        seconds: by stage, of all of them.
        warnings: certificates that the graph did not give, a line each.
    """

    results: Sequence[Streamed]
    photos: int
    seconds: Mapping[str, float]
    warnings: Sequence[str]


def stream(
    stages: Stages, photos: Iterable[PhotoInput], selection: Selection, options: StreamOptions
) -> Generator[Batch, None, None]:
    """Yield the results of every call, in order; threads end when the iterator is closed.

    Raises:
        Exception: raised by the source, also when it is closed at its end, after the results of
            all photos before.
    """
    pipeline = _Pipeline(stages, photos, selection, options)
    try:
        pipeline.start()
        yield from pipeline.batches()
    finally:
        pipeline.stop()


class _Pipeline:
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
        self._slots = threading.Semaphore(options.depth)
        self._finished: queue.SimpleQueue[Future[Batch] | _End] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(options.workers, "maskport-photos")
        # One thread, so calls keep their order.
        self._network = ThreadPoolExecutor(1, "maskport-network")
        # A daemon: a source that blocks must not keep the interpreter from exiting.
        self._source = threading.Thread(target=self._feed, name="maskport-source", daemon=True)

    def start(self) -> None:
        """Start the source; the other threads follow."""
        self._source.start()

    def batches(self) -> Iterator[Batch]:
        """Results in order; a call's slot is free when the caller asks for the next."""
        while (batch := self._next()) is not None:
            yield batch
            # Without this, one call more would be in memory while the next is awaited.
            del batch
            self._slots.release()

    def stop(self) -> None:
        """End the threads and drop what is queued.

        All are signaled before any is joined, so that a second interrupt leaves none running.
        """
        self._stopped.set()
        self._slots.release()
        executors = (self._network, self._pool)
        for executor in executors:
            executor.shutdown(wait=False, cancel_futures=True)
        for executor in executors:
            executor.shutdown(wait=True)
        if self._source.ident is not None:
            self._source.join(_JOIN_TIMEOUT_S)

    def _next(self) -> Batch | None:
        finished = self._finished.get()
        if not isinstance(finished, _End):
            return finished.result()
        if finished.error is not None:
            raise finished.error
        return None

    def _feed(self) -> None:
        """Send the source's photos and then, in any case, the end: the caller waits for it."""
        error: BaseException | None = None
        source: Iterator[PhotoInput] = iter(())
        try:
            source = iter(self._photos)
            for first in itertools.count(0, self._options.batch_size):
                self._slots.acquire()
                if self._stopped.is_set() or not self._send_call(source, first):
                    break
        except BaseException as raised:  # raised again in the caller's thread
            error = raised
        end = _End(error or _error_of_closing(source))
        try:
            self._network.submit(self._finished.put, end)
        except RuntimeError:  # the stream has been stopped, or the interpreter exits
            self._finished.put(end)

    def _send_call(self, source: Iterator[PhotoInput], first: int) -> bool:
        """Send the next photos as one call; False at the end of the source."""
        job = _Job(Call([], [], self._selection), first, [])
        try:
            # One by one: a photo in memory is copied before the source makes the next.
            for photo in itertools.islice(source, self._options.batch_size):
                self._add(job, photo)
        finally:
            # Also the photos before a failure of the source.
            if job.names and not self._stopped.is_set():
                prepared = self._pool.submit(self._stages.prepare, job.call)
                self._network.submit(self._run, job, prepared)
        return bool(job.names)

    def _add(self, job: _Job, photo: PhotoInput) -> None:
        if isinstance(photo, Item):
            job.names.append(ItemName(photo.name, photo.stem, image_id=photo.image_id))
            self._stages.add_photo(job.call, photo.photo, photo.name)
            return
        name = name_of(photo, job.first + len(job.call.photos))
        job.names.append(None)
        self._stages.add_photo(job.call, photo, name)

    def _run(self, job: _Job, prepared: Future[None]) -> None:
        """Run the network on one call, unless an earlier one failed."""
        if self._stopped.is_set():
            return
        try:
            prepared.result()
            self._stages.run(job.call)
            self._finished.put(self._pool.submit(self._finish, job))
        except BaseException as raised:  # raised again in the caller's thread
            self._stopped.set()
            self._finished.put(_End(raised))

    def _finish(self, job: _Job) -> Batch:
        call = job.call
        self._stages.finish(call)
        results = [self._streamed(job, index) for index in range(len(call.photos))]
        return Batch(results, len(call.results), call.seconds, call.warnings)

    def _streamed(self, job: _Job, index: int) -> Streamed:
        result = self._result(job, index)
        if self._options.then is not None and result.detections is not None:
            try:
                result = replace(result, value=self._options.then(result))
            except MaskportError as failed:
                result = replace(result, detections=None, error=_without_frames(failed))
        if self._options.keep_pixels:
            return result
        photo = None if is_in_memory(result.photo) else result.photo
        return replace(result, photo=photo, pixels=None)

    def _result(self, job: _Job, index: int) -> Streamed:
        call = job.call
        decoded, error = call.decoded.get(index), call.errors.get(index)
        return Streamed(
            index=job.first + index,
            photo=call.photos[index],
            detections=None if error is not None else call.results[index],
            error=None if error is None else _without_frames(error),
            pixels=None if decoded is None else decoded.pixels,
            seconds={stage: spent / len(call.photos) for stage, spent in call.seconds.items()},
            item=job.names[index],
        )


def require_several(photos: object) -> None:
    """Reject a single photo; an array of several, [N, h, w, 3], is accepted.

    Raises:
        UsageError: It is one photo, or nothing to iterate over.
    """
    is_array = isinstance(photos, np.ndarray) and photos.ndim < 4
    if is_array or isinstance(photos, _ONE_PHOTO):
        raise UsageError(
            f"stream: expected several photos, got one {type(photos).__name__}; put it in a list"
        )
    # Python also iterates over objects with `__getitem__` only, such as PyTorch's data sets.
    if not isinstance(photos, Iterable) and not hasattr(photos, "__getitem__"):
        raise UsageError(f"stream: expected photos to iterate over, got {type(photos).__name__}")


def _error_of_closing(source: object) -> BaseException | None:
    try:
        close = getattr(source, "close", None)
        if close is not None:
            close()
    except BaseException as raised:  # raised again in the caller's thread
        return raised
    return None


def _without_frames(error: MaskportError) -> MaskportError:
    """The error without traceback and causes, whose frames would keep photos in memory.

    The message of a cause becomes a note unless the error's message contains it.
    """
    cause = error.__cause__
    while cause is not None:
        message = " ".join(str(cause).split())
        if message not in str(error):
            error.add_note(f"because of {type(cause).__name__}: {message}")
        cause = cause.__cause__
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
