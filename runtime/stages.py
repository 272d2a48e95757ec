"""The stages of a call: decode, preprocess, network, results.

`predict` runs them one after the other, `stream` each in threads of its own. A photo that cannot be
used does not stop the others: what went wrong stands in its place.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from model.errors import ArtifactError, ImageError, MaskportError
from runtime.detections import Detections
from runtime.postprocessing.certificate import OnUncertified, missing_certificates
from runtime.postprocessing.from_raw import from_raw, raw_rows
from runtime.postprocessing.output_checks import check_outputs
from runtime.preprocessing.canvas import Canvas, CanvasRoom, resized_hw, to_canvas
from runtime.preprocessing.canvas_selection import Canvas as CanvasSides
from runtime.preprocessing.canvas_selection import choose_canvas, fixed_canvas
from runtime.selection import Selection
from runtime.sessions.session import Outputs, Session
from runtime.sources.decoded import Decoded
from runtime.sources.photos import Photo, decode, decode_at_least, is_in_memory

if TYPE_CHECKING:
    from model.spec import ModelSpec

STAGES = ("decode", "preprocess", "network", "results")
_T = TypeVar("_T")


@dataclass(slots=True)
class Group:
    """Photos of one call that share a canvas.

    Attributes:
        session: index of the network that runs them.
        rows: their places in the call.
        canvas: what the network is given.
        answer: what it answered.
    """

    session: int
    rows: list[int]
    canvas: Canvas
    answer: Outputs | None = None


@dataclass(slots=True)
class Call:
    """Photos on their way through the stages.

    Attributes:
        photos: as given; an error stands for a photo that could not even be read.
        names: what a message about each begins with.
        selection: which rows are wanted.
        decoded: each photo, once it is.
        errors: by place, what went wrong.
        found: by place, the results.
        remedies: what the graph could not certify, a line each.
        seconds: spent per stage.
    """

    photos: list[Photo | ImageError]
    names: list[str]
    selection: Selection
    decoded: dict[int, Decoded] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    errors: dict[int, MaskportError] = field(default_factory=dict)
    found: dict[int, Detections] = field(default_factory=dict)
    remedies: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's time to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def attempt(self, place: int, step: Callable[..., _T], *given: object) -> _T | None:
        """What `step` answers, or None when it fails; the error is kept in the photo's place."""
        try:
            return step(*given)
        except MaskportError as error:
            self.errors[place] = error
            return None


@dataclass(slots=True)
class StageTimes:
    """Seconds spent per stage, summed over photos; safe to add to from several threads."""

    photos: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, seconds: Mapping[str, float], photos: int = 0) -> None:
        """Count one call."""
        with self._lock:
            self.photos += photos
            for stage, more in seconds.items():
                self.seconds[stage] += more

    def __str__(self) -> str:
        count = max(self.photos, 1)
        parts = [f"{stage} {1e3 * s / count:.1f} ms" for stage, s in self.seconds.items()]
        return " · ".join(parts)


class Stages:
    """The stages over one model on one or several canvases.

    Args:
        sessions: opened networks; several are one model on several fixed canvases.
        on_uncertified: see `runtime.predictor.Predictor`.
        scaled_decode: see there.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        on_uncertified: OnUncertified,
        scaled_decode: bool = False,
    ) -> None:
        self.sessions = tuple(sessions)
        self._on_uncertified = on_uncertified
        self._scaled_decode = scaled_decode
        self._canvases: tuple[CanvasSides | None, ...] = tuple(
            fixed_canvas(session.artifact) for session in sessions
        )
        self._room = CanvasRoom()
        self._is_closed = False

    def close(self) -> None:
        """Free the sessions; a call that is on its way fails."""
        self._is_closed = True
        for session in self.sessions:
            session.close()

    @property
    def spec(self) -> ModelSpec:
        """What decides the numbers."""
        return self.sessions[0].artifact.spec

    def take(self, call: Call, photo: Photo | ImageError, name: str) -> None:
        """Add a photo to a call that other threads will work on.

        One in memory is decoded and copied at once: cameras fill one array again and again, and a
        Pillow image reads its file when its pixels are wanted, which two threads cannot do at the
        same time.
        """
        place = len(call.photos)
        call.photos.append(photo)
        call.names.append(name)
        if is_in_memory(photo):
            with call.timed("decode"):
                self._decode_at(call, place)
                if place in call.decoded:
                    copied = replace(call.decoded[place], pixels=call.decoded[place].pixels.copy())
                    call.decoded[place], call.photos[place] = copied, copied.pixels

    def prepare(self, call: Call) -> None:
        """Decode every photo that is not yet, and put it on the canvas that suits it."""
        with call.timed("decode"):
            for place in range(len(call.photos)):
                if place not in call.decoded and place not in call.errors:
                    self._decode_at(call, place)
        with call.timed("preprocess"):
            rows: dict[int, list[int]] = {}
            for place, decoded in sorted(call.decoded.items()):
                chosen = call.attempt(place, self._choose, decoded.full_hw, call.names[place])
                if chosen is not None:
                    rows.setdefault(chosen, []).append(place)
            call.groups = [
                Group(session, places, self._canvas(session, [call.decoded[p] for p in places]))
                for session, places in rows.items()
            ]

    def run(self, call: Call) -> None:
        """Run the network on every group."""
        with call.timed("network"):
            for group in call.groups:
                feed = {"images": group.canvas.images, "image_hw": group.canvas.image_hw}
                session = self.sessions[group.session]
                try:
                    answer = session.run(feed)
                    images = len(group.canvas.images)
                    check_outputs(answer, self.spec, images, session.artifact.path)
                    group.answer = answer
                except MaskportError as error:
                    if self._is_closed:
                        raise
                    call.errors.update(dict.fromkeys(group.rows, error))
                else:
                    # The answer is the network's own memory, the canvas is free again.
                    self._room.give_back(group.canvas.images)

    def finish(self, call: Call) -> None:
        """Bring every answer to the photo's own pixels and keep the rows that are wanted."""
        with call.timed("results"):
            for group in call.groups:
                answer, group.answer = group.answer, None
                if answer is None:
                    continue
                for row, place in enumerate(group.rows):
                    found = call.attempt(place, self._result, call, group, answer, row)
                    if found is not None:
                        call.found[place] = found

    def _decode_at(self, call: Call, place: int) -> None:
        decoded = call.attempt(place, self._decode, call.photos[place], call.names[place])
        if decoded is not None:
            call.decoded[place] = decoded

    def _decode(self, photo: Photo | ImageError, name: str) -> Decoded:
        if isinstance(photo, ImageError):
            raise photo
        try:
            if self._scaled_decode:
                return decode_at_least(photo, self._resized_hw)
            pixels = decode(photo)
            return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))
        except ImageError as error:
            # Files carry their name in the message already.
            if isinstance(photo, str | os.PathLike):
                raise
            raise ImageError(f"{name}{error}") from error

    def _resized_hw(self, photo_hw: tuple[int, int]) -> tuple[int, int]:
        """What a photo becomes on the canvas that suits it."""
        chosen = choose_canvas(photo_hw, self.spec.preprocess, self._canvases)
        return resized_hw(photo_hw, self.spec.preprocess, self._canvases[chosen])

    def _choose(self, photo_hw: tuple[int, int], name: str) -> int:
        try:
            return choose_canvas(photo_hw, self.spec.preprocess, self._canvases)
        except ImageError as error:
            raise ImageError(f"{name}{error}") from error

    def _canvas(self, session: int, decoded: Sequence[Decoded]) -> Canvas:
        fewest = self.sessions[session].artifact.manifest.batch_bounds[0]
        rule, canvas = self.spec.preprocess, self._canvases[session]
        return to_canvas(
            [one.pixels for one in decoded],
            rule,
            canvas,
            max(len(decoded), fewest),
            sizes=[resized_hw(one.full_hw, rule, canvas) for one in decoded],
            room=self._room,
        )

    def _result(self, call: Call, group: Group, answer: Outputs, row: int) -> Detections:
        remedies = missing_certificates(answer, row)
        path = self.sessions[group.session].artifact.path
        if remedies and self._on_uncertified == "raise":
            raise ArtifactError(f"{path}: {'; '.join(remedies)}")
        if remedies and self._on_uncertified == "warn":
            call.remedies += [f"{path}: {remedy}" for remedy in remedies]
        height, width = (int(side) for side in group.canvas.image_hw[row])
        found = from_raw(
            raw_rows(answer, row),
            self.spec,
            call.decoded[group.rows[row]].full_hw,
            (height, width),
            group.canvas.origin_yx[row],
        )
        return call.selection.apply(found)


def name_of(photo: object, index: int | None) -> str:
    """What a message about a photo begins with; one photo that is no file needs no name."""
    if isinstance(photo, str | os.PathLike):
        return f"{os.fspath(photo)}: "
    return "" if index is None else f"photo {index}: "
