"""Many photos, with decoding, network and results at work at the same time.

    feeder ──► pool: decode, preprocess ──► network thread ──► pool: results ──► caller

Calls leave in the order in which they came. A call begins only when there is a place for it, and
the place is free again when the caller has taken its last photo: however slow the caller or fast
the source, no more than `depth` calls are in memory.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import ImageError, MaskportError, UsageError
from runtime.detections import Detections
from runtime.selection import Selection
from runtime.sources.photos import Photo
from runtime.stages import Call, Stages, name_of

UInt8 = npt.NDArray[np.uint8]
# How long to wait for a source that is in the middle of its next photo when a stream is closed.
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """What became of one photo.

    Attributes:
        index: its place in the stream, from 0.
        photo: as it was given.
        detections: what was found, in the photo's own pixels; None where `error` says why not.
        error: what was wrong with this photo.
        pixels: uint8 [h, w, 3] RGB, None where it could not be decoded; a fraction of the photo's
            size where it was decoded so.
        seconds: per stage; photos of one batch share its time.
        value: what the stream's `then` answered.
    """

    index: int
    photo: Photo | ImageError
    detections: Detections | None
    error: MaskportError | None
    pixels: UInt8 | None
    seconds: Mapping[str, float]
    value: Any = None


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

    Raises:
        UsageError: a number below 1.
    """

    batch_size: int = 1
    workers: int = 2
    depth: int = 6
    then: Then | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "depth"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected at least 1, got {getattr(self, name)}")


class _Ended:
    """Behind the last call: the source ended, or failed with `error`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


_Job = tuple[Call, int, "Future[None]"]  # a call, the index of its first photo, what is awaited
_Finished = tuple[Call, "Future[list[Streamed]]"]


def stream(
    stages: Stages,
    photos: Iterable[Photo | ImageError],
    selection: Selection,
    options: StreamOptions,
) -> Generator[tuple[Call, list[Streamed]], None, None]:
    """Yield every call with its results, in order; threads end when the iterator is closed.

    Raises:
        Exception: what the source itself raises, after the results of all photos before.
    """
    line = _Line(stages, photos, selection, options)
    try:
        yield from line.results()
    finally:
        line.stop()


class _Line:
    """The threads of one stream and the queues between them."""

    def __init__(
        self,
        stages: Stages,
        photos: Iterable[Photo | ImageError],
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
        self._threads = [
            threading.Thread(target=self._feed, name="maskport-source", daemon=True),
            threading.Thread(target=self._run, name="maskport-network", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

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
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    def _feed(self) -> None:
        """Take photos from the source, a call at a time, as long as there is a place."""
        error: BaseException | None = None
        source: Iterator[Photo | ImageError] = iter(())
        try:
            source = iter(self._photos)
            for first in itertools.count(0, self._options.batch_size):
                self._places.acquire()
                if self._stopped.is_set():
                    break
                some = list(itertools.islice(source, self._options.batch_size))
                if not some or self._stopped.is_set():
                    break
                call = Call(
                    some, [name_of(p, first + n) for n, p in enumerate(some)], self._selection
                )
                self._prepared.put((call, first, self._pool.submit(self._stages.prepare, call)))
        except BaseException as raised:  # the caller's thread raises it
            error = None if self._stopped.is_set() else raised
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
            self._prepared.put(_Ended(error))

    def _run(self) -> None:
        """Run the network on one call after the other."""
        while not self._stopped.is_set():
            job = self._prepared.get()
            if isinstance(job, _Ended):
                self._finished.put(job)
                return
            call, first, prepared = job
            try:
                prepared.result()
                self._stages.run(call)
                results = self._pool.submit(self._finish, call, first)
            except BaseException as raised:
                self._finished.put(_Ended(raised))
                return
            self._finished.put((call, results))

    def _finish(self, call: Call, first: int) -> list[Streamed]:
        self._stages.finish(call)
        return [self._streamed(call, first, place) for place in range(len(call.photos))]

    def _streamed(self, call: Call, first: int, place: int) -> Streamed:
        share = {stage: spent / len(call.photos) for stage, spent in call.seconds.items()}
        photo, decoded = call.photos[place], call.decoded.get(place)
        pixels = None if decoded is None else decoded.pixels
        index, error = first + place, call.errors.get(place)
        found = None if error is not None else call.found[place]
        result = Streamed(index, photo, found, error, pixels, share)
        if self._options.then is None or found is None:
            return result
        try:
            value = self._options.then(result)
        except MaskportError as failed:
            return Streamed(index, photo, None, failed, pixels, share)
        return Streamed(index, photo, found, None, pixels, share, value)
