"""`Predictor`: open an artifact, give it photos, get `Detections`."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

import numpy as np
import numpy.typing as npt

from model.errors import ArtifactError, ImageError, UsageError
from model.spec import ModelSpec
from runtime.answer import require_answer
from runtime.artifact import Artifact
from runtime.detections import Detections, RawDetections, from_raw
from runtime.preprocess import Canvas, resized_hw, to_canvas
from runtime.sessions.session import Answer, Session, open_session
from runtime.sources.photos import Photo, decode

UInt8 = npt.NDArray[np.uint8]
OnInexact = Literal["warn", "raise", "ignore"]


class InexactResultWarning(UserWarning):
    """A result that the graph could not certify: NMS undecided, or candidates cut."""


@dataclass(slots=True)
class StageTimes:
    """Seconds spent per stage, summed over photos."""

    photos: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"decode": 0.0, "preprocess": 0.0, "network": 0.0, "results": 0.0}
    )

    def __str__(self) -> str:
        count = max(self.photos, 1)
        parts = [f"{stage} {1e3 * s / count:.1f} ms" for stage, s in self.seconds.items()]
        return " · ".join(parts)


class Predictor:
    """An opened artifact.

    Photos are paths, Pillow images or uint8 arrays ([h, w, 3] RGB or [h, w] grey). Every photo
    is answered in its own pixels. `score_threshold` can only be raised above the exported one.

    Args:
        session: an opened network.
        on_inexact: what to do when a graph reports that its result is not certainly the greedy
            one: warn, raise `ArtifactError`, or leave it to `Detections.exact`.
    """

    def __init__(self, session: Session, on_inexact: OnInexact = "warn") -> None:
        self._session = session
        self._on_inexact = on_inexact
        self.times = StageTimes()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: str | None = None,
        threads: int | None = None,
        on_inexact: OnInexact = "warn",
        sha256: str | None = None,
        runtime_cache: str | Path | None = None,
    ) -> Self:
        """Open an exported `.onnx` file, an `.engine`, or a checkpoint (which needs PyTorch).

        Args:
            path: the file.
            backend: "onnxruntime", "tensorrt" or "torch"; None goes by the suffix.
            threads: of the CPU.
            on_inexact: see the class.
            sha256: a hash that the file must have; what is beside an engine cannot prove that it
                is the one you built, this can.
            runtime_cache: a TensorRT-RTX engine: file that keeps the kernels compiled for this
                GPU; it is code, keep it where only you can write.

        Raises:
            ArtifactError: no such file, damaged, changed, or not one that maskport wrote.
            MissingDependencyError: the backend's library is not installed.
            DeviceError: an engine, and no usable GPU.
        """
        cache = None if runtime_cache is None else Path(runtime_cache)
        return cls(open_session(Path(path), backend, threads, sha256, cache), on_inexact)

    @property
    def artifact(self) -> Artifact:
        """The opened file's spec and manifest."""
        return self._session.artifact

    @property
    def spec(self) -> ModelSpec:
        """What decides the numbers."""
        return self._session.artifact.spec

    # A str is a sequence too, of str; at run time it is one photo.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Photo, *, score_threshold: float | None = None, batch_size: int = 1
    ) -> Detections: ...

    @overload
    def predict(
        self,
        photos: Sequence[Photo],
        *,
        score_threshold: float | None = None,
        batch_size: int = 1,
    ) -> list[Detections]: ...

    def predict(
        self,
        photos: Photo | Sequence[Photo],
        *,
        score_threshold: float | None = None,
        batch_size: int = 1,
    ) -> Detections | list[Detections]:
        """Detect on one photo, or on several.

        Photos of one batch share a canvas that holds the largest, as in the eager model; more
        padding moves features at a photo's edge a little, so the default takes them one by one.

        Raises:
            ImageError: a photo that cannot be used, named.
            UsageError: a score threshold below the exported one, or a batch size that the
                artifact cannot run.
        """
        self._check_threshold(score_threshold)
        is_list = isinstance(photos, Sequence) and not isinstance(photos, str)
        given: Sequence[Photo] = photos if is_list else [photos]  # type: ignore[assignment, list-item]
        names = [_name(photo, index if is_list else None) for index, photo in enumerate(given)]
        found: list[Detections] = []
        size = self._batch(batch_size)
        for start in range(0, len(given), size):
            chunk = slice(start, start + size)
            found.extend(self._predict_batch(given[chunk], names[chunk]))
        if score_threshold is not None:
            found = [d.above(score_threshold) for d in found]
        return found if is_list else found[0]

    def decode(self, photo: Photo) -> UInt8:
        """Decode a photo as `predict` does, its time counted; for callers that need its pixels.

        Returns:
            uint8 [h, w, 3] RGB, which `predict` takes as it is.

        Raises:
            ImageError: see `runtime.sources.photos.decode`.
        """
        clock = _Clock(self.times)
        pixels = decode(photo)
        clock.lap("decode")
        return pixels

    def warm_up(self) -> None:
        """Run once on a blank photo, so that the first real one is not slowed by set-up."""
        short, long = self.spec.preprocess.short_side, self.spec.preprocess.long_side
        self.predict(np.zeros((short, min(long, short * 4 // 3), 3), np.uint8))
        self.times = StageTimes()

    def close(self) -> None:
        """Free the session."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _batch(self, batch_size: int) -> int:
        _, most = self.artifact.manifest.batch_bounds
        if batch_size < 1:
            raise UsageError(f"batch_size: expected at least 1, got {batch_size}")
        if most is not None and batch_size > most:
            raise UsageError(
                f"batch_size {batch_size}: the artifact was exported for a batch of {most} at "
                f"most; export it with --batch {batch_size}"
            )
        return batch_size if self.artifact.manifest.batch is None else most or batch_size

    def _check_threshold(self, score_threshold: float | None) -> None:
        exported = self.spec.box.score_threshold
        if score_threshold is None:
            return
        if not 0.0 <= score_threshold <= 1.0:
            raise UsageError(f"score threshold: expected 0 to 1, got {score_threshold:g}")
        if score_threshold < exported:
            raise UsageError(
                f"score threshold {score_threshold:g} is below the exported {exported:g}; "
                f"export with --score-threshold {score_threshold:g}"
            )

    def _predict_batch(self, photos: Sequence[Photo], names: Sequence[str]) -> list[Detections]:
        """One run of the network; `names` are for messages."""
        clock = _Clock(self.times)
        decoded = [_decode_named(p, name) for p, name in zip(photos, names, strict=True)]
        clock.lap("decode")
        canvas = self._canvas(decoded, names)
        clock.lap("preprocess")
        answer = self._session.run({"images": canvas.images, "image_hw": canvas.image_hw})
        require_answer(answer, self.spec, len(canvas.images), self.artifact.path)
        clock.lap("network")
        found = [self._result(answer, canvas, row, p) for row, p in enumerate(decoded)]
        clock.lap("results")
        self.times.photos += len(photos)
        self._report_inexact(answer, len(photos))
        return found

    def _canvas(self, decoded: Sequence[UInt8], names: Sequence[str]) -> Canvas:
        manifest = self.artifact.manifest
        fixed = None
        if manifest.height is not None and manifest.width is not None:
            fixed = manifest.height, manifest.width
        for name, pixels in zip(names, decoded, strict=True):
            try:
                resized_hw(pixels.shape[:2], self.spec.preprocess, fixed)
            except ImageError as error:
                raise ImageError(f"{name}{error}") from error
        rows = max(len(decoded), manifest.batch_bounds[0])
        return to_canvas(decoded, self.spec.preprocess, fixed, rows)

    def _result(self, answer: Answer, canvas: Canvas, row: int, pixels: UInt8) -> Detections:
        height, width = (int(side) for side in canvas.image_hw[row])
        photo_hw = (pixels.shape[0], pixels.shape[1])
        resized = (height, width)
        return from_raw(raw_rows(answer, row), self.spec, photo_hw, resized, canvas.origin_yx[row])

    def _report_inexact(self, answer: Answer, photos: int) -> None:
        remedies = inexact_remedies(answer, photos)
        if not remedies or self._on_inexact == "ignore":
            return
        message = f"{self.artifact.path}: {'; '.join(remedies)}"
        if self._on_inexact == "raise":
            raise ArtifactError(message)
        warnings.warn(message, InexactResultWarning, stacklevel=4)


class _Clock:
    """Adds the time since the last lap to a stage."""

    def __init__(self, times: StageTimes) -> None:
        self._times = times
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._times.seconds[stage] += now - self._last
        self._last = now


def raw_rows(answer: Answer, row: int) -> RawDetections:
    """One image's valid rows out of a session's answer, in canvas pixels."""
    count = int(answer["counts"][row])
    masks, heatmaps = answer.get("masks"), answer.get("keypoint_heatmaps")
    return RawDetections(
        boxes=answer["boxes"][row, :count],
        scores=answer["scores"][row, :count],
        labels=answer["labels"][row, :count],
        masks=None if masks is None else masks[row, :count],
        nms_open=int(answer["nms_open"][row]),
        candidates_cut=int(answer["candidates_cut"][row]),
        keypoint_heatmaps=None if heatmaps is None else heatmaps[row, :count],
        samples_cut=int(answer["samples_cut"][row]),
    )


def inexact_remedies(answer: Answer, photos: int) -> list[str]:
    """What keeps an answer from being certainly the eager one, and which export option helps.

    Args:
        answer: of a session.
        photos: rows of the batch that are photos; the others are filling.
    """
    found = []
    if answer["nms_open"][:photos].any():
        most = int(answer["nms_open"][:photos].max())
        found.append(f"NMS left {most} boxes of a photo undecided; export with more --nms-rounds")
    if answer["candidates_cut"][:photos].any():
        most = int(answer["candidates_cut"][:photos].max())
        found.append(
            f"{most} candidates of a photo were cut that might have counted; export with a "
            "higher --candidates"
        )
    if answer["samples_cut"][:photos].any():
        most = int(answer["samples_cut"][:photos].max())
        found.append(
            f"{most} RoIs of a photo were pooled with too few samples; export with a higher "
            "--max-sampling, or without it"
        )
    return found


def _decode_named(photo: Photo, name: str) -> UInt8:
    try:
        return decode(photo)
    except ImageError as error:
        # Files carry their name in the message already.
        if isinstance(photo, str | os.PathLike):
            raise
        raise ImageError(f"{name}{error}") from error


def _name(photo: Photo, index: int | None) -> str:
    """What a message about a photo begins with; one photo that is no file needs no name."""
    if isinstance(photo, str | os.PathLike):
        return f"{os.fspath(photo)}: "
    return "" if index is None else f"photo {index}: "
