"""Frames of video files, cameras and network streams, by PyAV."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from model.arrays import UInt8
from model.errors import ImageError, MissingDependencyError, in_brief
from runtime.sources.container_end import missing_bytes
from runtime.sources.decoded import MAX_PIXELS, check_size
from runtime.sources.regular_file import open_regular

SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts"}
)
# FFmpeg detects the format by content. These formats cannot refer to other files.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc"
# For the decoders that probe the first frames, and for ours.
LIMITS = {"max_pixels": str(MAX_PIXELS)}
# Raised by PyAV besides its own errors, for missing codecs and invalid frames.
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


def file_frames(path: Path, stride: int) -> Frames:
    """Yield every N-th frame of a video file, upright, with its index from 0.

    A damaged or truncated file yields the frames before the damage, then one `ImageError` with the
    index of the frame that could not be read. A frame that the decoder marks as corrupt counts as
    damaged; damage that decoders do not report stays undetected.

    Args:
        path: of the file, which is open from the first frame to the end of the iteration.
        stride: N.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """

    def opened(av: Any) -> AbstractContextManager[Any]:
        return _whole_file(av, path)

    return _frames(opened, str(path), stride, is_live=False)


def live_frames(opened: Opener, where: str, stride: int) -> Frames:
    """As `file_frames`, for a camera or stream, until it ends.

    Damaged frames are skipped: a bad connection has many.

    Args:
        opened: opens the container with PyAV.
        where: the name for messages.
        stride: N.
    """
    return _frames(opened, where, stride, is_live=True)


def _frames(opened: Opener, where: str, stride: int, is_live: bool) -> Frames:
    av = require_pyav()
    number, is_open = 0, False
    try:
        with opened(av) as container:
            is_open = True
            for frame in _decoded(av, container, is_live):
                if frame.is_corrupt and not is_live:
                    raise ValueError("the decoder could not read all of the frame")
                if number % stride == 0 and not frame.is_corrupt:
                    # A stream may change its size.
                    check_size(frame.width, frame.height)
                    yield number, upright(frame)
                number += 1
        if number == 0:
            raise ImageError("expected a video, got no frame")
    except ImageError as error:
        error.where = error.where or where
        yield number, error
    except MemoryError:
        message = f"frame {number}: larger than the memory; scale the video down"
        yield number, ImageError(message, where)
    except (av.FFmpegError, *_DAMAGE) as error:
        broken = "broke off" if is_live else "damaged or truncated video"
        cannot = "cannot be opened" if is_live else "unknown video format, or damaged"
        what = f"frame {number}: {broken}" if is_open else cannot
        reason = getattr(error, "strerror", None) or in_brief(error)
        yield number, ImageError(f"{what} ({reason})", where)


@contextmanager
def _whole_file(av: Any, path: Path) -> Iterator[Any]:
    with open_regular(path, "a video") as file:
        options = {"format_whitelist": _FORMATS, **LIMITS}
        # Titles may be in any encoding.
        with av.open(file, options=options, metadata_errors="replace") as container:
            yield container
        missing = missing_bytes(file)
        if missing:
            raise ValueError(f"the file lacks its last {missing} bytes")


def _decoded(av: Any, container: Any, is_live: bool) -> Iterator[Any]:
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise ImageError("expected a file with a video stream, got one without")
    if stream.codec_context is None:
        raise ImageError("this build of PyAV cannot decode the video; convert it, say to H.264")
    if stream.codec_context.width:
        check_size(stream.codec_context.width, stream.codec_context.height)
    # Also limits a size that only the packets have, before its memory is allocated.
    stream.codec_context.options = LIMITS
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except (av.InvalidDataError, av.ExternalError):
            # Damage. Any other error comes from a decoder that fails on every packet.
            if not is_live:
                raise
            continue
        yield from frames


def upright(frame: Any) -> UInt8:
    """A decoded frame of PyAV as uint8 [h, w, 3] RGB, rotated by its display matrix.

    A rotation is rounded to a multiple of 90 degrees; pixels that are not square stay so.
    """
    pixels: UInt8 = frame.to_ndarray(format="rgb24")
    matrix = next((bytes(d) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None)
    return pixels if matrix is None else rotate(pixels, matrix)


def rotate(pixels: UInt8, matrix: bytes) -> UInt8:
    """Apply a display matrix of 9 native int32: x' = a x + c y, y' = b x + d y.

    Source: libavutil/display.h; ISO/IEC 14496-12, 6.2.2.
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.transpose(1, 0, 2)
        x_sign, y_sign = c, b
    else:
        x_sign, y_sign = a, d
    if x_sign < 0:
        pixels = pixels[:, ::-1]
    if y_sign < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
