"""The child process that runs one artifact, so that its memory and its threads are its own.

It answers one request at a time over a pipe; instead of an answer it may send the error that a
user can act on.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import ArtifactError, MaskportError
from runtime.benchmarking.memory import peak_memory_bytes
from runtime.benchmarking.samples import STAGES, Timing
from runtime.detections import Detections
from runtime.formats.coco import CocoRow, rows
from runtime.masks import rle
from runtime.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Setting:
    """How an artifact is opened and asked.

    `threads` are of networks on the CPU; an engine has none.
    """

    path: Path
    backend: str | None = None
    device: str | None = None
    threads: int | None = None
    score_threshold: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """One photo's detections without their soft masks: what comparing needs, in little memory.

    Attributes:
        boxes: float32 [D, 4] xyxy, original-image pixels.
        scores: float32 [D].
        labels: int64 [D].
        image_hw: of the original image.
        runs: the masks as COCO's run lengths, None for a box-only model.
        keypoints: float32 [D, J, 3], or None.
        exact: see `Detections`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    image_hw: tuple[int, int]
    runs: tuple[rle.Rle, ...] | None
    keypoints: NDArray[np.float32] | None
    exact: bool

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def mask_probs(self) -> NDArray[np.float32] | None:
        """Soft masks without a pixel: they only say that there are masks."""
        return None if self.runs is None else np.zeros((len(self), 0, 0), np.float32)

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """Bool [D, H, W]."""
        if self.runs is None:
            return None
        dense = [rle.decode(run) for run in self.runs]
        return np.stack(dense) if dense else np.zeros((0, *self.image_hw), np.bool_)

    def rle(self) -> Sequence[rle.Rle]:
        """The run lengths, one per row."""
        return self.runs or ()


@dataclass(frozen=True, slots=True)
class Seen:
    """One photo's result, and the same as COCO result rows whose `image_id` is 0."""

    kept: Kept
    coco: list[CocoRow]


def serve(pipe: Connection, setting: Setting) -> None:
    """Open the artifact, answer its description, then requests until the pipe is closed."""
    # Ctrl-C reaches the whole group; the parent decides, and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _answer(pipe, lambda: _serve(pipe, setting))


def _serve(pipe: Connection, setting: Setting) -> None:
    is_engine = (setting.backend or setting.path.suffix.lower()) in ("tensorrt", ".engine")
    with Predictor.open(
        setting.path,
        backend=setting.backend,
        device=setting.device,
        threads=None if is_engine else setting.threads,
        on_uncertified="ignore",
    ) as predictor:
        asked = _Asked(predictor, setting.score_threshold)
        predictor.warm_up()
        pipe.send(predictor.artifact)
        requests: dict[str, Callable[..., Any]] = {
            "see": asked.see,
            "time": asked.time,
            "stream": asked.stream,
            "memory": peak_memory_bytes,
        }
        while True:
            try:
                name, arguments = pipe.recv()
            except EOFError:
                return
            _answer(pipe, partial(_reply, pipe, requests[name], arguments))


def _reply(pipe: Connection, request: Callable[..., Any], arguments: Sequence[Any]) -> None:
    pipe.send(request(*arguments))


def _answer(pipe: Connection, work: Callable[[], None]) -> None:
    """Do something; what a user can act on goes through the pipe in place of the answer."""
    try:
        work()
    except MaskportError as error:
        pipe.send(error)
    except (OSError, MemoryError) as error:
        pipe.send(ArtifactError(" ".join(str(error).split()) or "out of memory"))


class _Asked:
    """What the parent may ask for."""

    def __init__(self, predictor: Predictor, score_threshold: float | None) -> None:
        self._predictor = predictor
        self._threshold = score_threshold

    def see(self, photo: Path) -> Seen:
        """Detect on one photo, untimed."""
        found = self._predictor.predict(photo, score_threshold=self._threshold)
        kept = Kept(
            found.boxes,
            found.scores,
            found.labels,
            found.image_hw,
            None if found.mask_probs is None else tuple(found.rle()),
            found.keypoints,
            found.exact,
        )
        return Seen(kept, rows(found, 0, self._predictor.spec.classes))

    def time(self, photos: Sequence[Path]) -> Timing:
        """One call of the network, from files to run lengths."""
        before = dict(self._predictor.times.seconds)
        started = time.perf_counter()
        found = self._predictor.predict(
            photos, batch_size=len(photos), score_threshold=self._threshold
        )
        predicted = time.perf_counter()
        for detections in found:
            detections.rle()
        ended = time.perf_counter()
        after = self._predictor.times.seconds
        seconds = {stage: after[stage] - before[stage] for stage in STAGES}
        seconds["results"] += ended - predicted
        return Timing(seconds, ended - started, len(photos))

    def stream(self, photos: Sequence[Path], batch_size: int) -> float:
        """Seconds for all photos with the stages at work at the same time."""
        started = time.perf_counter()
        for result in self._predictor.stream(
            photos, batch_size=batch_size, score_threshold=self._threshold, then=_run_lengths
        ):
            if result.error is not None:
                raise result.error
        return time.perf_counter() - started


def _run_lengths(result: Any) -> int:
    found: Detections = result.detections
    return len(found.rle())
