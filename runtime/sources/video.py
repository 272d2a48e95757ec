"""Frames of video files, cameras and network streams, by PyAV."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from model.arrays import UInt8
from model.errors import ImageError, MissingDependencyError
from runtime.sources.container_end import missing_bytes
from runtime.sources.decoded import MAX_PIXELS
from runtime.sources.regular_file import open_regular
from runtime.sources.turned_frame import upright

SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts"}
)
# FFmpeg goes by the content. Of its formats some are lists that name other files, and would open
# what the list's author wants to be opened; none of these holds such.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc"
# For the decoders that look at the first frames, and for ours.
LIMITS = {"max_pixels": str(MAX_PIXELS)}
# What PyAV raises besides its own errors: over codecs that are not built in, and odd frames.
_DAMAGE = (OSError, ValueError, TypeError, AttributeError, ArithmeticError)

Frames = Generator[tuple[int, UInt8 | ImageError], None, None]
Opener = Callable[[Any], AbstractContextManager[Any]]


def require_pyav() -> Any:
    """PyAV, imported.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "videos and cameras need PyAV; pip install 'maskport[video]'"
        ) from error
    return av


def file_frames(path: Path, every: int) -> Frames:
    """Every N-th frame of a video file, upright, with its number from 0.

    Where the file is damaged, also where it ends before its container says, the frames before that
    come first, then one `ImageError` with the number of the frame that could not be read. A frame
    that the decoder marks as patched up counts as damaged; what decoders do not notice, such as
    some bits flipped inside a frame, cannot be told here either.

    Args:
        path: of the file, which is open from the first frame to the end of the iteration.
        every: N.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """

    def opened(av: Any) -> AbstractContextManager[Any]:
        return _whole_file(av, path)

    return _frames(opened, str(path), every, is_live=False)


def live_frames(opened: Opener, where: str, every: int) -> Frames:
    """Every N-th frame of a camera or stream, until it ends, as `file_frames`.

    Frames that arrive damaged are left out and do not end it: on a bad line there are many.

    Args:
        opened: opens the container, given PyAV.
        where: the name for messages.
        every: N.
    """
    return _frames(opened, where, every, is_live=True)


def _frames(opened: Opener, where: str, every: int, is_live: bool) -> Frames:
    av = require_pyav()
    number, is_open = 0, False
    try:
        with opened(av) as container:
            is_open = True
            for frame in _decoded(av, container, where, is_live):
                if frame.is_corrupt and not is_live:
                    raise ValueError("the decoder could not read all of it")
                if number % every == 0 and not frame.is_corrupt:
                    yield number, _pixels(frame, where)
                number += 1
        if number == 0:
            raise ImageError("expected a video, got no frame", where)
    except ImageError as error:
        yield number, error
    except MemoryError:
        remedy = "scale the video down"
        yield number, ImageError(f"frame {number}: larger than the memory; {remedy}", where)
    except (av.FFmpegError, *_DAMAGE) as error:
        broken = "broke off" if is_live else "damaged or truncated video"
        cannot = "cannot be opened" if is_live else "no video of a known kind, or damaged"
        what = f"frame {number}: {broken}" if is_open else cannot
        yield number, ImageError(f"{what} ({_said(error)})", where)


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


@contextmanager
def _whole_file(av: Any, path: Path) -> Iterator[Any]:
    with open_regular(path, "a video") as file:
        options = {"format_whitelist": _FORMATS, **LIMITS}
        # Titles and the like are in whatever letters their writer used.
        with av.open(file, options=options, metadata_errors="replace") as container:
            yield container
        missing = missing_bytes(file)
        if missing:
            raise ValueError(f"the file lacks its last {missing} bytes")


def _decoded(av: Any, container: Any, where: str, is_live: bool) -> Iterator[Any]:
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise ImageError("expected a file with a video stream, got one without", where)
    if stream.codec_context is None:
        raise ImageError(
            "this build of PyAV cannot decode the video; convert it, say to H.264", where
        )
    _check_size(stream.codec_context, where)
    # Also when the size comes from the packets only, before anything of that size is allocated.
    stream.codec_context.options = LIMITS
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except (av.InvalidDataError, av.ExternalError):
            # Damage, found by FFmpeg or by a library that it calls. Other errors would come with
            # every packet, of a decoder that does not work.
            if not is_live:
                raise
            continue
        yield from frames


def _pixels(frame: Any, where: str) -> UInt8:
    # A stream may change its size on the way.
    _check_size(frame, where)
    return upright(frame)


def _check_size(sized: Any, where: str) -> None:
    if sized.width * sized.height > MAX_PIXELS:
        raise ImageError(
            f"{sized.width}x{sized.height} is more than {MAX_PIXELS} pixels; scale it down", where
        )
