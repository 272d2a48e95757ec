"""The stages of a call: decode, preprocess, network, results.

`predict` runs them one after the other, `stream` in threads. A photo that cannot be used does not
stop the others: its error takes the place of its result.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from model.errors import ArtifactError, ImageError, MaskportError, UsageError
from runtime.detections import Detections
from runtime.postprocessing.certificate import OnUncertified, missing_certificates
from runtime.postprocessing.from_raw import from_raw, raw_rows
from runtime.postprocessing.output_checks import check_outputs
from runtime.preprocessing.canvas import Canvas, CanvasPool, resized_hw, to_canvas
from runtime.preprocessing.canvas_selection import choose_canvas
from runtime.selection import Selection
from runtime.sessions.session import Outputs, Session
from runtime.sources.decoded import Decoded, whole
from runtime.sources.photos import Photo, decode_as, decode_at_least, is_in_memory
from runtime.sources.pixel_format import PixelFormat, ValueRange

if TYPE_CHECKING:
    from model.spec import ModelSpec

STAGES = ("decode", "preprocess", "network", "results")
_T = TypeVar("_T")


@dataclass(slots=True)
class Group:
    """Photos of one call that share a canvas.

    Attributes:
        session: index of the session that runs them.
        indices: their indices in the call.
        canvas: the network's input.
        outputs: the network's output, once it has run.
    """

    session: int
    indices: list[int]
    canvas: Canvas
    outputs: Outputs | None = None


@dataclass(slots=True)
class Call:
    """Photos that pass through the stages together.

    Attributes:
        photos: the caller's photos; an error if one could not even be read.
        names: of the photos, for messages; "" for a photo without a name.
        selection: which rows to keep.
        decoded: decoded photos by index.
        groups: photos that share a canvas.
        errors: by index.
        results: by index.
        warnings: certificates that the graph did not give, a line each.
        seconds: by stage.
    """

    photos: list[Photo | ImageError]
    names: list[str]
    selection: Selection
    decoded: dict[int, Decoded] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    errors: dict[int, MaskportError] = field(default_factory=dict)
    results: dict[int, Detections] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's time to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def run_step(self, index: int, step: Callable[..., _T], *arguments: object) -> _T | None:
        """Run a step of one photo; if it fails, record the error, with the photo's name."""
        try:
            return step(*arguments)
        except ImageError as error:
            error.where = error.where or self.names[index]
            self.errors[index] = error
        except MaskportError as error:
            self.errors[index] = error
        return None


@dataclass(slots=True)
class StageTimes:
    """Seconds by stage, summed over photos; thread-safe."""

    photos: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, seconds: Mapping[str, float], photos: int = 0) -> None:
        """Add one call."""
        with self._lock:
            self.photos += photos
            for stage, spent in seconds.items():
                self.seconds[stage] += spent

    def __str__(self) -> str:
        count = max(self.photos, 1)
        parts = [f"{stage} {1e3 * s / count:.1f} ms" for stage, s in self.seconds.items()]
        return " · ".join(parts)


class Stages:
    """The stages over one model with one or several canvases.

    Args:
        sessions: one, or several of one model with different fixed canvases.
        on_uncertified: see `runtime.predictor.Predictor`.
        scaled_decode: see there.
        value_range: see there.

    Raises:
        UsageError: `scaled_decode` for other photos than 8-bit RGB.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        on_uncertified: OnUncertified,
        scaled_decode: bool = False,
        value_range: ValueRange | None = None,
    ) -> None:
        self.sessions = tuple(sessions)
        self.form = PixelFormat(self.spec.preprocess.channels, value_range)
        if scaled_decode and not self.form.is_rgb:
            raise UsageError(
                "--scaled-decode: only 8-bit RGB photos are decoded at a fraction of their size; "
                "omit it"
            )
        self._on_uncertified = on_uncertified
        self._scaled_decode = scaled_decode
        self._canvases_hw = tuple(session.artifact.manifest.canvas_hw for session in sessions)
        self._pool = CanvasPool()
        self._is_closed = False

    def close(self) -> None:
        """Free the sessions; a running call fails."""
        self._is_closed = True
        for session in self.sessions:
            session.close()

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.sessions[0].artifact.spec

    def add_photo(self, call: Call, photo: Photo | ImageError, name: str) -> None:
        """Add a photo to a call that other threads will run.

        A photo in memory is decoded and copied at once: a camera may reuse its array, and a Pillow
        image, which two threads must not read at the same time, reads its file lazily.
        """
        index = len(call.photos)
        call.photos.append(photo)
        call.names.append(name)
        if is_in_memory(photo):
            with call.timed("decode"):
                self._decode_at(call, index)
                if index in call.decoded:
                    copied = replace(call.decoded[index], pixels=call.decoded[index].pixels.copy())
                    call.decoded[index], call.photos[index] = copied, copied.pixels

    def prepare(self, call: Call) -> None:
        """Decode the photos that are not decoded yet, and put each on a canvas."""
        with call.timed("decode"):
            for index in range(len(call.photos)):
                if index not in call.decoded and index not in call.errors:
                    self._decode_at(call, index)
        with call.timed("preprocess"):
            rows: dict[int, list[int]] = {}
            for index, decoded in sorted(call.decoded.items()):
                session = call.run_step(index, self._choose, decoded.full_hw)
                if session is not None:
                    rows.setdefault(session, []).append(index)
            call.groups = [
                Group(session, members, self._canvas(session, [call.decoded[i] for i in members]))
                for session, members in rows.items()
            ]

    def run(self, call: Call) -> None:
        """Run the network on every group."""
        with call.timed("network"):
            for group in call.groups:
                inputs = {"images": group.canvas.images, "image_hw": group.canvas.image_hw}
                session = self.sessions[group.session]
                try:
                    outputs = session.run(inputs)
                    images = len(group.canvas.images)
                    check_outputs(outputs, self.spec, images, session.artifact.path)
                    group.outputs = outputs
                except MaskportError as error:
                    if self._is_closed:
                        raise
                    call.errors.update(dict.fromkeys(group.indices, error))
                else:
                    # The outputs have memory of their own.
                    self._pool.give_back(group.canvas.images)

    def finish(self, call: Call) -> None:
        """Rescale the outputs to each photo's own pixels and select rows."""
        with call.timed("results"):
            for group in call.groups:
                outputs, group.outputs = group.outputs, None
                if outputs is None:
                    continue
                for row, index in enumerate(group.indices):
                    result = call.run_step(index, self._result, call, group, outputs, row)
                    if result is not None:
                        call.results[index] = result

    def _decode_at(self, call: Call, index: int) -> None:
        photo = call.photos[index]
        if isinstance(photo, ImageError):
            call.errors[index] = photo
            return
        decoded = call.run_step(index, self._decode, photo)
        if decoded is not None:
            call.decoded[index] = decoded

    def _decode(self, photo: Photo) -> Decoded:
        if self._scaled_decode:
            return decode_at_least(photo, self._resized_hw)
        return whole(decode_as(photo, self.form))

    def _resized_hw(self, photo_hw: tuple[int, int]) -> tuple[int, int]:
        """A photo's size on the canvas chosen for it."""
        canvas_hw = self._canvases_hw[self._choose(photo_hw)]
        return resized_hw(photo_hw, self.spec.preprocess, canvas_hw)

    def _choose(self, photo_hw: tuple[int, int]) -> int:
        return choose_canvas(photo_hw, self.spec.preprocess, self._canvases_hw)

    def _canvas(self, session: int, decoded: Sequence[Decoded]) -> Canvas:
        smallest = self.sessions[session].artifact.manifest.batch_bounds[0]
        rule, canvas_hw = self.spec.preprocess, self._canvases_hw[session]
        photos = [one.pixels for one in decoded]
        if not self.form.is_rgb:
            photos = [self.form.scaled(pixels) for pixels in photos]
        return to_canvas(
            photos,
            rule,
            canvas_hw,
            max(len(decoded), smallest),
            sizes=[resized_hw(one.full_hw, rule, canvas_hw) for one in decoded],
            pool=self._pool,
        )

    def _result(self, call: Call, group: Group, outputs: Outputs, row: int) -> Detections:
        missing = missing_certificates(outputs, row)
        path = self.sessions[group.session].artifact.path
        if missing and self._on_uncertified == "raise":
            raise ArtifactError(f"{path}: {'; '.join(missing)}")
        if missing and self._on_uncertified == "warn":
            call.warnings += [f"{path}: {reason}" for reason in missing]
        height, width = (int(side) for side in group.canvas.image_hw[row])
        detections = from_raw(
            raw_rows(outputs, row),
            self.spec,
            call.decoded[group.indices[row]].full_hw,
            (height, width),
            group.canvas.origin_yx[row],
        )
        return call.selection.apply(detections)


def name_of(photo: object, index: int | None) -> str:
    """A photo's name in messages; a single photo in memory needs none."""
    if isinstance(photo, str | os.PathLike):
        return str(os.fspath(photo))
    return "" if index is None else f"photo {index}"
