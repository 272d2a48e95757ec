"""All that a user can name as input, opened as one source of photos."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from model.errors import ImageError, MissingDependencyError, UsageError
from runtime.sources import video
from runtime.sources.items import Item, Source
from runtime.sources.lists import Line, lines, read_list
from runtime.sources.live import is_live, live_name, live_stem, open_live
from runtime.sources.photos import files_at
from runtime.sources.stems import Stems
from runtime.whole_numbers import require_count

_LIST_SUFFIX = ".txt"
_STDIN = "-"


def open_sources(places: Sequence[str], every: int = 1, stdin: TextIO | None = None) -> Source:
    """Look at what a user named, and answer its photos, in that order.

    * an image file, or whatever else is neither a video nor a list;
    * a folder: its photos, sorted, without those of its subfolders and without videos;
    * a glob pattern: the photos and videos that match, sorted; "**" goes into subfolders;
    * a video file, by its suffix: its frames; an animated GIF or WebP is a photo;
    * a list, "….txt": a photo or video a line, relative to the list's folder;
    * "-": such a list on standard input, relative to the current folder, read while it grows;
    * "camera:0", "camera:/dev/video0": frames until it is unplugged;
    * "rtsp://…", "http://…" and the like: frames of a stream until it ends.

    What can be missed is missed here. What can only be seen on the way (a line of a list that
    names no file, a damaged video) becomes an item with an error.

    Args:
        places: what the user named.
        every: take every N-th frame of videos, cameras and streams; photos are all taken.
        stdin: the stream of "-", by default standard input.

    Raises:
        UsageError: a place with nothing there, a list that is none, "-" twice, `every` below 1.
        MissingDependencyError: a video or camera, and PyAV is not installed.
    """
    require_count("every", every)
    if list(places).count(_STDIN) > 1:
        raise UsageError("-: standard input can be read only once")
    parts: list[_Part] = [part for p in places for part in _parts(p, every, stdin)]
    if any(part.needs_pyav for part in parts):
        video.require_pyav()
    return _Sources(tuple(parts))


class _Part(Protocol):
    """Some neighbouring items of a source."""

    @property
    def count(self) -> int | None: ...

    @property
    def needs_pyav(self) -> bool: ...

    def items(self, stems: Stems) -> Iterator[Item]: ...


@dataclass(frozen=True, slots=True)
class _Sources:
    parts: tuple[_Part, ...]

    @property
    def count(self) -> int | None:
        counts = [part.count for part in self.parts]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def __iter__(self) -> Iterator[Item]:
        stems = Stems()
        for part in self.parts:
            yield from part.items(stems)


@dataclass(frozen=True, slots=True)
class _PhotoFile:
    path: Path
    count: int | None = 1
    needs_pyav: bool = False

    def items(self, stems: Stems) -> Iterator[Item]:
        yield Item(str(self.path), stems.photo(self.path.stem), self.path)


@dataclass(frozen=True, slots=True)
class _Missing:
    """An entry of a list that cannot be used."""

    line: Line
    why: str = "no such file"
    count: int | None = 1
    needs_pyav: bool = False

    def items(self, stems: Stems) -> Iterator[Item]:
        path = self.line.path
        error = ImageError(f"{self.line.where}: {path}: {self.why}")
        yield Item(str(path), stems.photo(path.stem), error)


@dataclass(frozen=True, slots=True)
class _VideoFile:
    path: Path
    every: int
    # Containers do not always say how many frames they hold, nor always rightly.
    count: int | None = None
    needs_pyav: bool = True

    def items(self, stems: Stems) -> Iterator[Item]:
        frames = video.file_frames(self.path, self.every)
        return _numbered(frames, str(self.path), stems.video(self.path.stem))


@dataclass(frozen=True, slots=True)
class _Live:
    place: str
    every: int
    count: int | None = None
    needs_pyav: bool = True

    def items(self, stems: Stems) -> Iterator[Item]:
        def opened(av: Any) -> Any:
            return open_live(av, self.place)

        name = live_name(self.place)
        frames = video.live_frames(opened, name, self.every)
        return _numbered(frames, name, stems.video(live_stem(self.place)))


@dataclass(frozen=True, slots=True)
class _Stdin:
    stream: TextIO
    every: int
    count: int | None = None
    needs_pyav: bool = False

    def items(self, stems: Stems) -> Iterator[Item]:
        # Bytes, where they can be had: a name need not be text in the user's language.
        stream = getattr(self.stream, "buffer", self.stream)
        for line in lines(stream, "standard input", Path()):
            part = _entry(line, self.every)
            if part.needs_pyav and (lacking := _lacking_pyav()):
                part = _Missing(line, lacking)
            yield from part.items(stems)


def _lacking_pyav() -> str:
    """What to do about it; in the middle of a job that is one photo's error, not the job's end."""
    try:
        video.require_pyav()
    except MissingDependencyError as error:
        return str(error)
    return ""


def _numbered(frames: video.Frames, name: str, stem: str) -> Iterator[Item]:
    with closing(frames):
        for number, frame in frames:
            yield Item(f"{name}#{number:06d}", f"{stem}-{number:06d}", frame)


def _parts(place: str, every: int, stdin: TextIO | None) -> Sequence[_Part]:
    if place == _STDIN:
        return [_Stdin(stdin or sys.stdin, every)]
    if is_live(place):
        return [_Live(place, every)]
    if place.lower().endswith(_LIST_SUFFIX) and os.path.isfile(place):
        return [_entry(line, every) for line in _entries(place)]
    files = files_at(place)
    if not files:
        raise UsageError(
            f"{place}: no photo there; expected an image or video file, a folder of images, a "
            "glob, a list (.txt), -, camera:0 or rtsp://…"
        )
    return [_file(path, every) for path in files]


def _entries(place: str) -> list[Line]:
    found = read_list(Path(place))
    if not found:
        raise UsageError(f"{place}: an empty list; expected a path a line")
    return found


def _entry(line: Line, every: int) -> _Part:
    return _file(line.path, every) if os.path.lexists(line.path) else _Missing(line)


def _file(path: Path, every: int) -> _Part:
    is_video = path.suffix.lower() in video.SUFFIXES
    return _VideoFile(path, every) if is_video else _PhotoFile(path)
