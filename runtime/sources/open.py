"""Opens everything that a user can name as input as one source of photos."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

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


def open_sources(
    inputs: Sequence[str],
    frame_stride: int = 1,
    stdin: TextIO | None = None,
    on_repeat: Callable[[str], None] = lambda name: None,
) -> Source:
    """Open inputs as one source, in their order.

    An input is
    * an image file, or any other file that is neither a video nor a list;
    * a folder: its photos, sorted, without videos and subfolders;
    * a glob pattern: the matching photos and videos by their suffixes, sorted; "**" includes
      subfolders, and a pattern that ends with a suffix takes all files that have it;
    * a video file, by its suffix: its frames; an animated GIF or WebP is a photo;
    * a list, "….txt": one photo or video per line, relative to the list's folder;
    * "-": such a list on standard input, relative to the current folder, read as it arrives;
    * "camera:0", "camera:/dev/video0": frames until it is unplugged;
    * "rtsp://…", "http://…" and similar: frames of a stream until it ends.

    An input or list entry that is named more than once, spelled the same, is used once, the first
    time; standard input does not repeat the other inputs. Errors that appear during a pass (a list
    entry without a file, a damaged video) become items with an error.

    Args:
        inputs: as above.
        frame_stride: take every N-th frame of videos, cameras and streams.
        stdin: the stream of "-"; None takes standard input.
        on_repeat: called with the name of a repeated input or list entry.

    Raises:
        UsageError: an input without photos, an invalid list, "-" twice or without standard input,
            or a `frame_stride` below 1.
        MissingDependencyError: a video or camera without PyAV.
    """
    require_count("frame_stride", frame_stride)
    if list(inputs).count(_STDIN) > 1:
        raise UsageError("-: standard input can be read only once; give one -")
    parts: dict[str, _Part] = {}
    for part in (part for text in inputs for part in _parts(text, frame_stride, stdin)):
        if part.key in parts:
            on_repeat(part.name)
        else:
            parts[part.key] = part
    if any(part.needs_pyav for part in parts.values()):
        video.require_pyav()
    if _STDIN in parts:
        others = frozenset(parts)
        parts[_STDIN] = _stdin(_open_stdin(stdin), frame_stride, others, on_repeat)
    return _Sources(tuple(parts.values()))


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive items of a source.

    `key` is equal for two inputs that are spelled the same; `name` is for display.
    """

    key: str
    name: str
    items: Callable[[Stems], Iterator[Item]]
    count: int | None = 1
    needs_pyav: bool = False


@dataclass(frozen=True, slots=True)
class _Sources:
    parts: tuple[_Part, ...]

    @property
    def count(self) -> int | None:
        counts = [part.count for part in self.parts]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def known(self) -> list[Item]:
        stems, known = Stems(), list[Item]()
        for part in self.parts:
            # Reserves the stem of a video, and opens it only when iterated.
            items = part.items(stems)
            if part.count is not None:
                known.extend(items)
        return known

    def __iter__(self) -> Iterator[Item]:
        stems = Stems()
        for part in self.parts:
            yield from part.items(stems)


def _photo_file(path: Path) -> _Part:
    def items(stems: Stems) -> Iterator[Item]:
        yield Item(str(path), stems.photo(path.stem), path)

    return _Part(str(path), str(path), items)


def _missing(line: Line, reason: str = "no such file; check the path") -> _Part:
    """A list entry that cannot be used."""

    def items(stems: Stems) -> Iterator[Item]:
        error = ImageError(reason, f"{line.where}: {line.path}")
        yield Item(str(line.path), stems.photo(line.path.stem), error)

    return _Part(str(line.path), str(line.path), items)


def _video_file(path: Path, frame_stride: int) -> _Part:
    def items(stems: Stems) -> Iterator[Item]:
        frames = video.file_frames(path, frame_stride)
        return _numbered(frames, str(path), stems.video(path.stem))

    # Frame counts of containers are optional and may be wrong.
    return _Part(str(path), str(path), items, count=None, needs_pyav=True)


def _live(address: str, frame_stride: int) -> _Part:
    def items(stems: Stems) -> Iterator[Item]:
        plain, name = live_stem(address), live_name(address)
        stem = stems.video(plain)
        # Addresses may differ in hidden parts only; their frames need different names.
        if stem != plain:
            name = f"{name} ({stem})"
        frames = video.live_frames(lambda av: open_live(av, address), name, frame_stride)
        return _numbered(frames, name, stem)

    return _Part(address, live_name(address), items, count=None, needs_pyav=True)


def _stdin(
    stream: TextIO,
    frame_stride: int,
    other_keys: frozenset[str] = frozenset(),
    on_repeat: Callable[[str], None] = lambda name: None,
) -> _Part:
    name = "standard input"

    def items(stems: Stems) -> Iterator[Item]:
        keys = set(other_keys)
        # Bytes if possible: a file name may be invalid in the user's encoding.
        for line in lines(getattr(stream, "buffer", stream), name, Path()):
            part = _entry(line, frame_stride)
            if part.key in keys:
                on_repeat(part.name)
                continue
            keys.add(part.key)
            if part.needs_pyav:
                try:
                    video.require_pyav()
                except MissingDependencyError as error:
                    # An error of this item, which does not end the run.
                    part = _missing(line, str(error))
            yield from part.items(stems)

    return _Part(_STDIN, name, items, count=None)


def _numbered(frames: video.Frames, name: str, stem: str) -> Iterator[Item]:
    with closing(frames):
        for number, frame in frames:
            yield Item(f"{name}#{number:06d}", f"{stem}-{number:06d}", frame)


def _parts(text: str, frame_stride: int, stdin: TextIO | None) -> Sequence[_Part]:
    if text == _STDIN:
        return [_stdin(_open_stdin(stdin), frame_stride)]
    if is_live(text):
        return [_live(text, frame_stride)]
    if text.lower().endswith(_LIST_SUFFIX) and os.path.isfile(text):
        return [_entry(line, frame_stride) for line in _entries(text)]
    files = _files(text)
    if not files:
        raise UsageError(
            f"{text}: no photos found; expected an image or video file, a folder of images, a "
            "glob, a list (.txt), -, camera:0 or rtsp://…"
        )
    return [_file(path, frame_stride) for path in files]


def _files(pattern: str) -> list[Path]:
    files = files_at(pattern)
    suffix = Path(pattern).suffix
    # "*.jpg" selects a suffix itself; "*" and "a.*" do not.
    if os.path.lexists(pattern) or (suffix and not any(c in suffix for c in "*?[]")):
        return files
    return [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES | video.SUFFIXES]


def _open_stdin(stream: TextIO | None) -> TextIO:
    stream = sys.stdin if stream is None else stream
    # None if the program was started with standard input closed.
    if stream is None or stream.closed:
        raise UsageError("-: standard input is closed; pipe a list of paths into it")
    return stream


def _entries(text: str) -> list[Line]:
    entries = read_list(Path(text))
    if not entries:
        raise UsageError(f"{text}: an empty list; expected one path per line")
    return entries


def _entry(line: Line, frame_stride: int) -> _Part:
    if not os.path.lexists(line.path):
        return _missing(line)
    return _file(line.path, frame_stride)


def _file(path: Path, frame_stride: int) -> _Part:
    is_video = path.suffix.lower() in video.SUFFIXES
    return _video_file(path, frame_stride) if is_video else _photo_file(path)
