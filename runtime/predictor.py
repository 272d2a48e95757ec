"""`Predictor`: open an artifact, pass photos, get `Detections`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack, overload

import numpy as np

from model.errors import UsageError
from runtime.artifacts.metadata import Artifact
from runtime.closing import Closing
from runtime.detections import Detections
from runtime.postprocessing.certificate import (
    OnUncertified,
    UncertifiedResultWarning,
    check_on_uncertified,
)
from runtime.preprocessing.canvas_selection import require_one_model
from runtime.selection import Selection, SelectionOptions
from runtime.sessions.open import open_module, open_session
from runtime.sessions.session import Session
from runtime.sources.photos import Photo, decode_as
from runtime.sources.pixel_format import PixelFormat, Pixels, ValueRange
from runtime.stages import Call, Stages, StageTimes, name_of
from runtime.whole_numbers import require_count

if TYPE_CHECKING:  # what `import runtime.predictor` need not load
    from torch import nn

    from model.spec import ModelSpec
    from model.spec_options import SpecOptions
    from runtime.stream import PhotoInput, ResultCallback, Streamed, StreamOptions

PathLike = str | os.PathLike[str]


class Predictor(Closing):
    """An opened artifact; thread-safe.

    Photos are paths, Pillow images or uint8 arrays ([h, w, 3] RGB or [h, w] gray). A model of C
    other channels takes photos of C bands, of 8 or 16 bits: files or arrays [h, w, C]; see
    `runtime.sources.bands`. Results are in each photo's own pixels. Options per call select the
    rows of a result:

    * `score_threshold`: rows of at least this score; or a mapping from class name to threshold,
      with "*" for all other classes. Never below the exported one.
    * `mask_threshold`: probability that divides foreground from background.
    * `classes`: only these, by name.
    * `min_area_px`: rows whose mask (box, if there are no masks) has at least this area, in the
      photo's pixels.
    * `top_k`: the best of the remaining rows.

    Args:
        session: an opened session, or several of one model with different fixed canvases;
            `runtime.preprocessing.canvas_selection` chooses among them.
        on_uncertified: if a graph cannot certify that its result is the exact greedy one: warn,
            raise `ArtifactError`, or only set `Detections.exact` to False ("ignore").
        scaled_decode: decode JPEG files that are far larger than the canvas at 1/2, 1/4 or 1/8 of
            their size. Faster, but no longer the eager model's result: see
            `runtime.sources.photos.decode_at_least`.
        value_range: stored values that become 0 and 1, as (0, 4095) for 12 bits in 16; values
            outside are clipped. None takes the whole range of 8 or 16 bits.

    Raises:
        UsageError: sessions of different models or for equal canvases; a range that does not
            ascend.
    """

    def __init__(
        self,
        session: Session | Sequence[Session],
        on_uncertified: OnUncertified = "warn",
        scaled_decode: bool = False,
        value_range: ValueRange | None = None,
    ) -> None:
        check_on_uncertified(on_uncertified)
        sessions = list(session) if isinstance(session, Sequence) else [session]
        require_one_model([one.artifact for one in sessions])
        self._stages = Stages(sessions, on_uncertified, scaled_decode, value_range)
        self.times = StageTimes()

    @classmethod
    def open(
        cls,
        path: PathLike | nn.Module | Sequence[PathLike],
        *,
        backend: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        on_uncertified: OnUncertified = "warn",
        sha256: str | None = None,
        runtime_cache: PathLike | None = None,
        scaled_decode: bool = False,
        options: SpecOptions | None = None,
        config: PathLike | None = None,
        value_range: ValueRange | None = None,
    ) -> Self:
        """Open an exported `.onnx` file, an `.engine`, or a checkpoint (which needs PyTorch).

        Args:
            path: the file, or several of one model for different canvases; or a live module of
                torchvision's `GeneralizedRCNN` family, of which a copy runs in PyTorch.
            backend: "onnxruntime", "onnxruntime-tensorrt" (its TensorRT provider), "tensorrt" (an
                engine) or "torch" (a checkpoint); None chooses by the suffix.
            device: "cpu", "cuda" or "cuda:1"; None takes the GPU if the backend needs one, else
                the CPU. There is no silent fallback to another device.
            threads: of the CPU.
            on_uncertified: see the class.
            sha256: the hash that the file must have. The manifest beside an engine cannot prove
                that the engine is the one you built; this can.
            runtime_cache: for a TensorRT-RTX engine: file that keeps the kernels compiled for this
                GPU; it is code, so only you should be able to write it.
            scaled_decode: see the class.
            options: fields of the spec that a checkpoint does not hold, such as
                `SpecOptions(short_side=640)`; `maskport inspect` lists them.
            config: the framework's own configuration of a checkpoint.
            value_range: see the class.

        Warns:
            AssumptionWarning: values of a checkpoint's model that are in neither the file nor the
                options; also in `artifact.assumptions`.

        Raises:
            ArtifactError: no such file, damaged, changed, or not written by maskport.
            UsageError: contradicting options, or files of different models.
            ModelError: a live module with a part that cannot be run.
            MissingDependencyError: the backend's library is not installed.
            DeviceError: the backend needs a GPU and none is usable.
        """
        check_on_uncertified(on_uncertified)
        paths = list(path) if isinstance(path, list | tuple) else [path]
        is_module = not isinstance(paths[0], str | os.PathLike) if paths else False
        if (len(paths) > 1 or is_module) and (sha256 is not None or runtime_cache is not None):
            raise UsageError("sha256, runtime_cache: of one file each; open the files one by one")
        cache = None if runtime_cache is None else Path(runtime_cache)
        yaml = None if config is None else Path(config)
        sessions: list[Session] = []
        try:
            for one in paths:
                if isinstance(one, str | os.PathLike):
                    session = open_session(
                        Path(one), backend, threads, sha256, cache, device, options, yaml
                    )
                else:
                    session = open_module(one, backend, threads, device, options)
                sessions.append(session)
            return cls(sessions, on_uncertified, scaled_decode, value_range)
        except BaseException:
            for session in sessions:
                session.close()
            raise

    @property
    def artifact(self) -> Artifact:
        """Spec and manifest of the opened file; of the first of several."""
        return self._stages.sessions[0].artifact

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Spec and manifest of every opened file."""
        return tuple(session.artifact for session in self._stages.sessions)

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self._stages.spec

    @property
    def pixel_format(self) -> PixelFormat:
        """The channels that the model takes of a photo, and the range of values."""
        return self._stages.form

    # A str is also a sequence of str; at run time it is one photo.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Photo, *, batch_size: int = 1, **options: Unpack[SelectionOptions]
    ) -> Detections: ...

    @overload
    def predict(
        self, photos: Sequence[Photo], *, batch_size: int = 1, **options: Unpack[SelectionOptions]
    ) -> list[Detections]: ...

    def predict(
        self,
        photos: Photo | Sequence[Photo],
        *,
        batch_size: int = 1,
        **options: Unpack[SelectionOptions],
    ) -> Detections | list[Detections]:
        """Detect objects in one photo, or in several.

        Photos of one batch share a canvas that holds the largest, as in the eager model. Padding
        changes features at a photo's edge slightly, so the default is one photo per batch.

        Args:
            photos: one, or a sequence.
            batch_size: photos of one run of the network.
            options: which rows to keep, see the class.

        Raises:
            ImageError: a photo that cannot be used, named.
            UsageError: a score threshold below the exported one, an unknown class, or a batch size
                that the artifact cannot run.
        """
        selection = self._selection(options)
        is_list = isinstance(photos, Sequence) and not isinstance(photos, str | bytes | bytearray)
        several: Sequence[Photo] = photos if is_list else [photos]  # type: ignore[assignment, list-item]
        names = [name_of(photo, index if is_list else None) for index, photo in enumerate(several)]
        results: list[Detections] = []
        size = self._batch(batch_size)
        for start in range(0, len(several), size):
            part = slice(start, start + size)
            call = Call(list(several[part]), names[part], selection)
            results.extend(self._predict_batch(call))
        return results if is_list else results[0]

    def stream(
        self,
        photos: Iterable[PhotoInput],
        *,
        batch_size: int = 1,
        workers: int = 2,
        depth: int = 6,
        then: ResultCallback | None = None,
        keep_pixels: bool = False,
        **options: Unpack[SelectionOptions],
    ) -> Generator[Streamed, None, None]:
        """Detect objects in many photos, in order, with all stages running at the same time.

        A photo that cannot be used gives a result with an `error`; the stream continues. At most
        `depth` batches are in memory, however slow the caller or fast the source. The source is
        iterated in a thread of its own, and closed when the stream is. Arrays and Pillow images are
        copied before the next photo is requested, so a camera may reuse its array.

        Args:
            photos: any iterable, also an endless one; an `ImageError` in it becomes the result's
                `error`. The names of a source's items come back as `Streamed.item`.
            batch_size: see `predict`.
            workers: threads for decoding, preprocessing and results together; the network has
                threads of its own.
            depth: see above.
            then: called with each result in a worker thread; its return value becomes
                `Streamed.value`.
            keep_pixels: whether results hold their decoded photo when they come out; `then` always
                has it.
            options: which rows to keep, see the class.

        Raises:
            UsageError: see `predict`; one photo instead of several.
        """
        selection = self._selection(options)
        from runtime.stream import StreamOptions, require_several

        require_several(photos)
        how = StreamOptions(self._batch(batch_size), workers, depth, then, keep_pixels)
        return self._streamed(photos, selection, how)

    def check(self, *, batch_size: int = 1, **options: Unpack[SelectionOptions]) -> None:
        """Check the arguments of `predict` without a photo.

        Raises:
            UsageError: `predict` would raise it, too.
        """
        self._selection(options)
        self._batch(batch_size)

    def decode(self, photo: Photo) -> Pixels:
        """Decode a photo as `predict` does and add the time to `times`.

        Returns:
            uint8 [h, w, 3] RGB, or the model's bands [h, w, C] as stored, which `predict` accepts.

        Raises:
            ImageError: see `runtime.sources.photos.decode_as`.
        """
        call = Call([photo], [""], Selection())
        with call.timed("decode"):
            pixels = decode_as(photo, self.pixel_format)
        self.times.add(call.seconds)
        return pixels

    def warm_up(self) -> None:
        """Run every network once on a blank photo, so that the first real one is not slower."""
        from runtime.sources.pillow import prepare

        form = self.pixel_format
        dtype = np.uint8 if form.value_range is None else np.float32  # which holds any range
        short, long = self.spec.preprocess.short_side, self.spec.preprocess.long_side
        for artifact in self.artifacts:
            sides = artifact.manifest.canvas_hw or (short, min(long, short * 4 // 3))
            self.predict(np.zeros((*sides, form.channels), dtype))
        prepare()
        self.times = StageTimes()

    def close(self) -> None:
        """Free the sessions."""
        self._stages.close()

    def _selection(self, options: SelectionOptions) -> Selection:
        selection = Selection(**options)
        selection.check(self.spec)
        return selection

    def _batch(self, batch_size: int) -> int:
        """Photos per run: the requested number, or all that a fixed batch holds."""
        require_count("batch_size", batch_size)
        manifests = [artifact.manifest for artifact in self.artifacts]
        for manifest in manifests:
            manifest.require_batch("batch_size", batch_size)
        if manifests[0].batch is None:
            return batch_size
        return min(most for m in manifests if (most := m.batch_bounds[1]) is not None)

    def _predict_batch(self, call: Call) -> list[Detections]:
        """Run the network once for each canvas that the photos need."""
        for stage in (self._stages.prepare, self._stages.run, self._stages.finish):
            stage(call)
            if call.errors:
                raise call.errors[min(call.errors)]
        self.times.add(call.seconds, len(call.photos))
        self._warn(call.warnings, stacklevel=4)
        return [call.results[index] for index in range(len(call.photos))]

    def _streamed(
        self, photos: Iterable[PhotoInput], selection: Selection, options: StreamOptions
    ) -> Generator[Streamed, None, None]:
        from runtime.stream import stream

        with closing(stream(self._stages, photos, selection, options)) as batches:
            for batch in batches:
                self.times.add(batch.seconds, batch.photos)
                self._warn(batch.warnings, stacklevel=3)
                yield from batch.results
                del batch  # so that it is not kept while the next is awaited

    def _warn(self, reasons: Sequence[str], stacklevel: int) -> None:
        if reasons:
            warnings.warn(
                "; ".join(dict.fromkeys(reasons)), UncertifiedResultWarning, stacklevel=stacklevel
            )


__all__ = ["Predictor", "StageTimes", "UncertifiedResultWarning"]
