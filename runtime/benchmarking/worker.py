"""The child process that runs one artifact, so that its memory and its threads are its own.

It serves one request at a time over a pipe and replies with the result, or with an error that a
user can act on.
"""

from __future__ import annotations

import signal
import sys
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

from model.errors import ArtifactError, AssumptionWarning, MaskportError
from model.spec_options import SpecOptions
from runtime.benchmarking.timings import STAGES, Timing
from runtime.detections import Detections
from runtime.formats.coco import CocoRow, rows
from runtime.masks import rle
from runtime.predictor import Predictor
from runtime.sources.pixel_format import ValueRange

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How an artifact is opened and run.

    `threads` applies to networks on the CPU only, `spec` and `config` to checkpoints.
    """

    path: Path
    backend: str | None = None
    device: str | None = None
    threads: int | None = None
    score_threshold: float | None = None
    spec: SpecOptions | None = None
    config: Path | None = None
    value_range: ValueRange | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CompactDetections:
    """One photo's detections without mask probabilities, to be compared in little memory.

    Attributes:
        boxes: float32 [D, 4] xyxy, original-image pixels.
        scores: float32 [D].
        labels: int64 [D].
        image_hw: of the original image.
        mask_rles: the masks as COCO's run lengths, None for a box-only model.
        keypoints: float32 [D, J, 3], or None.
        exact: see `Detections`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    image_hw: tuple[int, int]
    mask_rles: tuple[rle.Rle, ...] | None
    keypoints: NDArray[np.float32] | None
    exact: bool

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def mask_probs(self) -> NDArray[np.float32] | None:
        """Float32 [D, 0, 0], without values; None for a box-only model."""
        return None if self.mask_rles is None else np.zeros((len(self), 0, 0), np.float32)

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """Bool [D, H, W]."""
        if self.mask_rles is None:
            return None
        dense = [rle.decode(mask) for mask in self.mask_rles]
        return np.stack(dense) if dense else np.zeros((0, *self.image_hw), np.bool_)

    def rle(self) -> Sequence[rle.Rle]:
        """The run lengths, one per row."""
        return self.mask_rles or ()


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """One photo's detections, also as COCO result rows with the `image_id` 0."""

    detections: CompactDetections
    coco: list[CocoRow]


def serve(pipe: Connection, options: OpenOptions) -> None:
    """Open the artifact, send its description, then serve requests until the pipe is closed."""
    # Ctrl-C reaches the whole process group; the parent decides, and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # The parent prints them, from the artifact.
    warnings.simplefilter("ignore", AssumptionWarning)
    _send_errors(pipe, lambda: _serve(pipe, options))


def _serve(pipe: Connection, options: OpenOptions) -> None:
    is_engine = (options.backend or options.path.suffix.lower()) in ("tensorrt", ".engine")
    with Predictor.open(
        options.path,
        backend=options.backend,
        device=options.device,
        threads=None if is_engine else options.threads,
        on_uncertified="ignore",
        options=options.spec,
        config=options.config,
        value_range=options.value_range,
    ) as predictor:
        requests = Requests(predictor, options.score_threshold)
        predictor.warm_up()
        pipe.send(predictor.artifact)
        handlers: dict[str, Callable[..., Any]] = {
            "detect": requests.detect,
            "time": requests.time,
            "stream": requests.stream,
            "memory": peak_memory_bytes,
        }

        while True:
            try:
                name, arguments = pipe.recv()
            except EOFError:
                return
            _send_errors(pipe, partial(_reply, pipe, handlers[name], arguments))


def _reply(pipe: Connection, handler: Callable[..., Any], arguments: Sequence[Any]) -> None:
    pipe.send(handler(*arguments))


def _send_errors(pipe: Connection, work: Callable[[], None]) -> None:
    """Do the work; send an error that a user can act on through the pipe."""
    try:
        work()
    except MaskportError as error:
        pipe.send(error)
    except (OSError, MemoryError) as error:
        pipe.send(ArtifactError(" ".join(str(error).split()) or "out of memory"))


class Requests:
    """The requests of the parent."""

    def __init__(self, predictor: Predictor, score_threshold: float | None) -> None:
        self._predictor = predictor
        self._threshold = score_threshold

    def detect(self, photo: Path) -> PhotoResult:
        """Detect on one photo, untimed."""
        detections = self._predictor.predict(photo, score_threshold=self._threshold)
        compact = CompactDetections(
            detections.boxes,
            detections.scores,
            detections.labels,
            detections.image_hw,
            None if detections.mask_probs is None else tuple(detections.rle()),
            detections.keypoints,
            detections.exact,
        )
        return PhotoResult(compact, rows(detections, 0))

    def time(self, photos: Sequence[Path]) -> Timing:
        """One call of the network, from files to run lengths."""
        before = dict(self._predictor.times.seconds)
        started = time.perf_counter()
        results = self._predictor.predict(
            photos, batch_size=len(photos), score_threshold=self._threshold
        )
        predicted = time.perf_counter()
        for detections in results:
            detections.rle()
        ended = time.perf_counter()
        after = self._predictor.times.seconds
        seconds = {stage: after[stage] - before[stage] for stage in STAGES}
        seconds["results"] += ended - predicted
        return Timing(seconds, ended - started, len(photos))

    def stream(self, photos: Sequence[Path], batch_size: int) -> float:
        """Seconds for all photos with all stages at work at the same time."""
        started = time.perf_counter()
        for result in self._predictor.stream(
            photos, batch_size=batch_size, score_threshold=self._threshold, then=_count_rles
        ):
            if result.error is not None:
                raise result.error
        return time.perf_counter() - started


def _count_rles(result: Any) -> int:
    detections: Detections = result.detections
    return len(detections.rle())


def peak_memory_bytes() -> int | None:
    """Peak resident memory; None on a system that does not report it.

    On Linux from the process's own status, because `getrusage` starts with the peak of the parent
    process.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
