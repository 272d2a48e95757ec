"""`Predictor`: open an artifact, give it photos, get `Detections`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack, overload

import numpy as np

from model.arrays import UInt8
from model.errors import UsageError
from runtime.artifacts.metadata import Artifact
from runtime.closing import Closing
from runtime.detections import Detections
from runtime.postprocessing.certificate import (
    OnUncertified,
    UncertifiedResultWarning,
    check_on_uncertified,
)
from runtime.preprocessing.canvas_selection import fixed_canvas, require_one_model
from runtime.selection import Selection, SelectionOptions
from runtime.sessions.open import open_session
from runtime.sessions.session import Session
from runtime.sources.photos import Photo, decode
from runtime.stages import Call, Stages, StageTimes, name_of
from runtime.whole_numbers import require_count

if TYPE_CHECKING:  # what `import runtime.predictor` need not load
    from model.spec import ModelSpec
    from runtime.stream import PhotoInput, ResultCallback, Streamed, StreamOptions

Place = str | os.PathLike[str]


class Predictor(Closing):
    """An opened artifact; safe to use from several threads.

    Photos are paths, Pillow images or uint8 arrays ([h, w, 3] RGB or [h, w] grey). Every photo
    is answered in its own pixels. Which rows of a result are kept can be said per call:

    * `score_threshold`: rows of at least this score; or a class name → threshold mapping, with
      "*" for every class that is not named. Never below the exported one.
    * `mask_threshold`: probability that divides foreground from background.
    * `classes`: only these, by name.
    * `min_area_px`: rows whose mask (box, where there are no masks) has at least this area, in the
      photo's pixels.
    * `top_k`: the best of what is left.

    Args:
        session: an opened network, or several: one model on several fixed canvases. Which photo
            goes where: `runtime.preprocessing.canvas_selection`.
        on_uncertified: what to do when a graph reports that its result is not certainly the greedy
            one: warn, raise `ArtifactError`, or leave it to `Detections.exact`.
        scaled_decode: decode JPEG files that are far larger than the canvas at 1/2, 1/4 or 1/8 of
            their size. Faster, and no longer the eager model's result: see
            `runtime.sources.photos.decode_at_least`.

    Raises:
        UsageError: sessions of different models or for equal canvases.
    """

    def __init__(
        self,
        session: Session | Sequence[Session],
        on_uncertified: OnUncertified = "warn",
        scaled_decode: bool = False,
    ) -> None:
        check_on_uncertified(on_uncertified)
        sessions = list(session) if isinstance(session, Sequence) else [session]
        require_one_model([one.artifact for one in sessions])
        self._stages = Stages(sessions, on_uncertified, scaled_decode)
        self.times = StageTimes()

    @classmethod
    def open(
        cls,
        path: Place | Sequence[Place],
        *,
        backend: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        on_uncertified: OnUncertified = "warn",
        sha256: str | None = None,
        runtime_cache: Place | None = None,
        scaled_decode: bool = False,
    ) -> Self:
        """Open an exported `.onnx` file, an `.engine`, or a checkpoint (which needs PyTorch).

        Args:
            path: the file, or several of one model for different canvases.
            backend: "onnxruntime", "onnxruntime-tensorrt" (its TensorRT provider), "tensorrt" (an
                engine) or "torch" (a checkpoint); None goes by the suffix.
            device: "cpu", "cuda" or "cuda:1"; None takes the GPU where the backend needs one, else
                the CPU. What is asked for is what runs: there is no falling back.
            threads: of the CPU.
            on_uncertified: see the class.
            sha256: a hash that the file must have; what is beside an engine cannot prove that it
                is the one you built, this can.
            runtime_cache: a TensorRT-RTX engine: file that keeps the kernels compiled for this
                GPU; it is code, keep it where only you can write.
            scaled_decode: see the class.

        Raises:
            ArtifactError: no such file, damaged, changed, or not one that maskport wrote.
            UsageError: options that do not go together, or files of different models.
            MissingDependencyError: the backend's library is not installed.
            DeviceError: no usable GPU where one is needed.
        """
        check_on_uncertified(on_uncertified)
        places = [path] if isinstance(path, str | os.PathLike) else list(path)
        if len(places) > 1 and (sha256 is not None or runtime_cache is not None):
            raise UsageError("sha256, runtime_cache: of one file each; open the files one by one")
        cache = None if runtime_cache is None else Path(runtime_cache)
        sessions: list[Session] = []
        try:
            for place in map(Path, places):
                session = open_session(place, backend, threads, sha256, cache, device)
                sessions.append(session)
            return cls(sessions, on_uncertified, scaled_decode)
        except BaseException:
            for session in sessions:
                session.close()
            raise

    @property
    def artifact(self) -> Artifact:
        """The opened file's spec and manifest; of several files the first one's."""
        return self._stages.sessions[0].artifact

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Of every opened file."""
        return tuple(session.artifact for session in self._stages.sessions)

    @property
    def spec(self) -> ModelSpec:
        """What decides the numbers."""
        return self._stages.spec

    # A str is a sequence too, of str; at run time it is one photo.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        photos: Photo,
        *,
        batch_size: int = 1,
        **wanted: Unpack[SelectionOptions],
    ) -> Detections: ...

    @overload
    def predict(
        self,
        photos: Sequence[Photo],
        *,
        batch_size: int = 1,
        **wanted: Unpack[SelectionOptions],
    ) -> list[Detections]: ...

    def predict(
        self,
        photos: Photo | Sequence[Photo],
        *,
        batch_size: int = 1,
        **wanted: Unpack[SelectionOptions],
    ) -> Detections | list[Detections]:
        """Detect on one photo, or on several.

        Photos of one batch share a canvas that holds the largest, as in the eager model; more
        padding moves features at a photo's edge a little, so the default takes them one by one.

        Args:
            photos: one, or a sequence.
            batch_size: photos of one run of the network.
            wanted: which rows are kept, see the class.

        Raises:
            ImageError: a photo that cannot be used, named.
            UsageError: a score threshold below the exported one, a class that the model does not
                know, or a batch size that the artifact cannot run.
        """
        selection = self._selection(wanted)
        is_list = isinstance(photos, Sequence) and not isinstance(photos, str | bytes | bytearray)
        given: Sequence[Photo] = photos if is_list else [photos]  # type: ignore[assignment, list-item]
        names = [name_of(photo, index if is_list else None) for index, photo in enumerate(given)]
        found: list[Detections] = []
        size = self._batch(batch_size)
        for start in range(0, len(given), size):
            chunk = slice(start, start + size)
            found.extend(self._predict_batch(Call(list(given[chunk]), names[chunk], selection)))
        return found if is_list else found[0]

    def stream(
        self,
        photos: Iterable[PhotoInput],
        *,
        batch_size: int = 1,
        workers: int = 2,
        depth: int = 6,
        then: ResultCallback | None = None,
        keep_pixels: bool = False,
        **wanted: Unpack[SelectionOptions],
    ) -> Generator[Streamed, None, None]:
        """Detect on many photos, in order, with all stages at work at the same time.

        A photo that cannot be used gives a result with an `error`, and the stream goes on. At most
        `depth` batches are in memory, however slow the caller or fast the source; a source is
        iterated in a thread of its own, and closed when the stream is. Arrays and Pillow images are
        copied before the next is asked for: a camera may fill one array again and again.

        Args:
            photos: any iterable, endless ones too; an `ImageError` in it is passed on in its place.
                The names of a source's items come back as `Streamed.item`.
            batch_size: see `predict`.
            workers: threads for decoding, preprocessing and results together; the network has
                threads of its own.
            depth: see above.
            then: run on each result in a worker thread; what it answers is `Streamed.value`.
            keep_pixels: whether results hold their decoded photo when they come out; `then` has it.
            wanted: which rows are kept, see the class.

        Raises:
            UsageError: see `predict`; one photo in place of several.
        """
        selection = self._selection(wanted)
        from runtime.stream import StreamOptions, require_several

        require_several(photos)
        options = StreamOptions(self._batch(batch_size), workers, depth, then, keep_pixels)
        return self._streamed(photos, selection, options)

    def check(self, *, batch_size: int = 1, **wanted: Unpack[SelectionOptions]) -> None:
        """Find out, without a photo, whether `predict` would take these arguments.

        Raises:
            UsageError: it would not.
        """
        self._selection(wanted)
        self._batch(batch_size)

    def decode(self, photo: Photo) -> UInt8:
        """Decode a photo as `predict` does, its time counted; for callers that need its pixels.

        Returns:
            uint8 [h, w, 3] RGB, which `predict` takes as it is.

        Raises:
            ImageError: see `runtime.sources.photos.decode`.
        """
        call = Call([photo], [""], Selection())
        with call.timed("decode"):
            pixels = decode(photo)
        self.times.add(call.seconds)
        return pixels

    def warm_up(self) -> None:
        """Run every network once on a blank photo, so that the first real one finds all set up."""
        from runtime.sources.pillow import prepare

        short, long = self.spec.preprocess.short_side, self.spec.preprocess.long_side
        for artifact in self.artifacts:
            sides = fixed_canvas(artifact) or (short, min(long, short * 4 // 3))
            self.predict(np.zeros((*sides, 3), np.uint8))
        prepare()
        self.times = StageTimes()

    def close(self) -> None:
        """Free the sessions."""
        self._stages.close()

    def _selection(self, wanted: SelectionOptions) -> Selection:
        selection = Selection(**wanted)
        selection.check(self.spec)
        return selection

    def _batch(self, batch_size: int) -> int:
        require_count("batch_size", batch_size)
        bounds = [artifact.manifest.batch_bounds[1] for artifact in self.artifacts]
        most = min((bound for bound in bounds if bound is not None), default=None)
        if most is not None and batch_size > most:
            raise UsageError(
                f"batch_size {batch_size}: the artifact was exported for a batch of {most} at "
                f"most; export it with --batch {batch_size}"
            )
        return batch_size if self.artifact.manifest.batch is None else most or batch_size

    def _predict_batch(self, call: Call) -> list[Detections]:
        """One run of the network per canvas that the photos need."""
        for stage in (self._stages.prepare, self._stages.run, self._stages.finish):
            stage(call)
            if call.errors:
                raise call.errors[min(call.errors)]
        self.times.add(call.seconds, len(call.photos))
        self._warn(call.remedies, stacklevel=4)
        return [call.found[place] for place in range(len(call.photos))]

    def _streamed(
        self,
        photos: Iterable[PhotoInput],
        selection: Selection,
        options: StreamOptions,
    ) -> Generator[Streamed, None, None]:
        from runtime.stream import stream

        with closing(stream(self._stages, photos, selection, options)) as batches:
            for batch in batches:
                self.times.add(batch.seconds, batch.found)
                self._warn(batch.remedies, stacklevel=3)
                yield from batch.results
                del batch  # not to be kept while the next is awaited

    def _warn(self, remedies: Sequence[str], stacklevel: int) -> None:
        if remedies:
            warnings.warn(
                "; ".join(dict.fromkeys(remedies)),
                UncertifiedResultWarning,
                stacklevel=stacklevel,
            )


__all__ = ["Predictor", "StageTimes", "UncertifiedResultWarning"]
