"""All that a user can name as input, opened as one source of photos."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from model.errors import ImageError, MissingDependencyError, UsageError
from runtime.sources import video
from runtime.sources.items import Item, Source
from runtime.sources.lists import Line, lines, read_list
from runtime.sources.live import is_live, live_name, live_stem, open_live
from runtime.sources.photos import SUFFIXES as PHOTO_SUFFIXES
from runtime.sources.photos import files_at
from runtime.sources.stems import Stems
from runtime.whole_numbers import require_count

_LIST_SUFFIX = ".txt"
_STDIN = "-"


def _unheard(name: str) -> None:
    """Nobody wants to know."""


def open_sources(
    places: Sequence[str],
    every: int = 1,
    stdin: TextIO | None = None,
    repeated: Callable[[str], None] = _unheard,
) -> Source:
    """Look at what a user named, and answer its photos, in that order.

    * an image file, or whatever else is neither a video nor a list;
    * a folder: its photos, sorted, without those of its subfolders and without videos;
    * a glob pattern: the photos and videos that match, sorted; "**" goes into subfolders. They are
      told by their suffixes; a pattern that ends with a suffix of its own takes what has that;
    * a video file, by its suffix: its frames; an animated GIF or WebP is a photo;
    * a list, "….txt": a photo or video a line, relative to the list's folder;
    * "-": such a list on standard input, relative to the current folder, read while it grows;
    * "camera:0", "camera:/dev/video0": frames until it is unplugged;
    * "rtsp://…", "http://…" and the like: frames of a stream until it ends.

    What is named more than once, in the same words, comes once, in its first place; what the
    command line names does not come out of standard input again.

    What can be missed is missed here. What can only be seen on the way (a line of a list that
    names no file, a damaged video) becomes an item with an error.

    Args:
        places: what the user named.
        every: take every N-th frame of videos, cameras and streams; photos are all taken.
        stdin: the stream of "-", by default standard input.
        repeated: told the name of what was named before, as soon as that is seen.

    Raises:
        UsageError: a place with nothing there, a list that is none, "-" twice or without standard
            input, `every` below 1.
        MissingDependencyError: a video or camera, and PyAV is not installed.
    """
    require_count("every", every)
    if list(places).count(_STDIN) > 1:
        raise UsageError("-: standard input can be read only once; give one -")
    parts: dict[str, _Part] = {}
    for part in (part for place in places for part in _parts(place, every, stdin)):
        if part.key in parts:
            repeated(part.name)
        else:
            parts[part.key] = part
    if any(part.needs_pyav for part in parts.values()):
        video.require_pyav()
    if _STDIN in parts:
        before = frozenset(parts)
        parts[_STDIN] = _Stdin(_open_stdin(stdin), every, before, repeated)
    return _Sources(tuple(parts.values()))


class _Part(Protocol):
    """Some neighbouring items of a source.

    `key` is the same for two that were named in the same words; `name` may be shown.
    """

    @property
    def key(self) -> str: ...

    @property
    def name(self) -> str: ...

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

    def known(self) -> list[Item]:
        stems, found = Stems(), list[Item]()
        for part in self.parts:
            # A video takes its stem, and is opened only when it is iterated.
            items = part.items(stems)
            if part.count is not None:
                found.extend(items)
        return found

    def __iter__(self) -> Iterator[Item]:
        stems = Stems()
        for part in self.parts:
            yield from part.items(stems)


class _NamedByPath:
    __slots__ = ()
    path: Path

    @property
    def key(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class _PhotoFile(_NamedByPath):
    path: Path
    count: int | None = 1
    needs_pyav: bool = False

    def items(self, stems: Stems) -> Iterator[Item]:
        yield Item(self.name, stems.photo(self.path.stem), self.path)


@dataclass(frozen=True, slots=True)
class _Missing(_NamedByPath):
    """An entry of a list that cannot be used."""

    path: Path
    where: str
    why: str = "no such file; check the path"
    count: int | None = 1
    needs_pyav: bool = False

    def items(self, stems: Stems) -> Iterator[Item]:
        error = ImageError(self.why, f"{self.where}: {self.path}")
        yield Item(self.name, stems.photo(self.path.stem), error)


@dataclass(frozen=True, slots=True)
class _VideoFile(_NamedByPath):
    path: Path
    every: int
    # Containers do not always say how many frames they hold, nor always rightly.
    count: int | None = None
    needs_pyav: bool = True

    def items(self, stems: Stems) -> Iterator[Item]:
        frames = video.file_frames(self.path, self.every)
        return _numbered(frames, self.name, stems.video(self.path.stem))


@dataclass(frozen=True, slots=True)
class _Live:
    key: str
    every: int
    count: int | None = None
    needs_pyav: bool = True

    @property
    def name(self) -> str:
        return live_name(self.key)

    def items(self, stems: Stems) -> Iterator[Item]:
        def opened(av: Any) -> Any:
            return open_live(av, self.key)

        plain = live_stem(self.key)
        stem = stems.video(plain)
        # Addresses that differ in what is not shown must still not give frames of one name.
        name = self.name if stem == plain else f"{self.name} ({stem})"
        return _numbered(video.live_frames(opened, name, self.every), name, stem)


@dataclass(frozen=True, slots=True)
class _Stdin:
    stream: TextIO
    every: int
    named: frozenset[str] = frozenset()
    repeated: Callable[[str], None] = _unheard
    key: str = _STDIN
    name: str = "standard input"
    count: int | None = None
    needs_pyav: bool = False

    def items(self, stems: Stems) -> Iterator[Item]:
        seen = set(self.named)
        # Bytes, where they can be had: a name need not be text in the user's language.
        stream = getattr(self.stream, "buffer", self.stream)
        for line in lines(stream, self.name, Path()):
            part = _entry(line, self.every)
            if part.key in seen:
                self.repeated(part.name)
                continue
            seen.add(part.key)
            if part.needs_pyav and (lacking := _lacking_pyav()):
                part = _Missing(line.path, line.where, lacking)
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
        return [_Stdin(_open_stdin(stdin), every)]
    if is_live(place):
        return [_Live(place, every)]
    if place.lower().endswith(_LIST_SUFFIX) and os.path.isfile(place):
        return [_entry(line, every) for line in _entries(place)]
    files = _files(place)
    if not files:
        raise UsageError(
            f"{place}: no photo there; expected an image or video file, a folder of images, a "
            "glob, a list (.txt), -, camera:0 or rtsp://…"
        )
    return [_file(path, every) for path in files]


def _files(place: str) -> list[Path]:
    files = files_at(place)
    suffix = Path(place).suffix
    # A pattern such as "*.jpg" says itself what is a photo; "*" and "a.*" do not.
    if os.path.lexists(place) or (suffix and not any(c in suffix for c in "*?[]")):
        return files
    return [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES | video.SUFFIXES]


def _open_stdin(given: TextIO | None) -> TextIO:
    # None where the program was started with it closed.
    stream: TextIO | None = sys.stdin if given is None else given
    if stream is None or stream.closed:
        raise UsageError("-: standard input is closed; pipe a list of paths into it")
    return stream


def _entries(place: str) -> list[Line]:
    found = read_list(Path(place))
    if not found:
        raise UsageError(f"{place}: an empty list; expected a path a line")
    return found


def _entry(line: Line, every: int) -> _Part:
    return (
        _file(line.path, every) if os.path.lexists(line.path) else _Missing(line.path, line.where)
    )


def _file(path: Path, every: int) -> _Part:
    is_video = path.suffix.lower() in video.SUFFIXES
    return _VideoFile(path, every) if is_video else _PhotoFile(path)
