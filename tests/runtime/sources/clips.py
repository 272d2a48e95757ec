"""Small videos with known pixels, and their display matrix."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

av = pytest.importorskip("av", reason="needs PyAV, of the extra video")

# Lossless RGB: frames can be compared exactly.
LOSSLESS = {
    "mp4": ("libx264rgb", "rgb24", {"crf": "0", "preset": "ultrafast"}),
    "mov": ("png", "rgb24", {}),
    "mkv": ("ffv1", "bgr0", {}),
    "avi": ("png", "rgb24", {}),
}
LOSSY = {
    "webm": ("libvpx", "yuv420p", {"crf": "4", "b": "2M"}),
    "m4v": ("mpeg4", "yuv420p", {"qscale": "2"}),
    "mpg": ("mpeg2video", "yuv420p", {"b": "4M"}),
    "mpeg": ("mpeg2video", "yuv420p", {"b": "4M"}),
    "ts": ("libx264", "yuv420p", {"crf": "8"}),
    "m2ts": ("libx264", "yuv420p", {"crf": "8"}),
}


def pictures(count: int, height: int = 32, width: int = 48) -> list[NDArray[np.uint8]]:
    """Four quarters of different colors, and a bar that grows with the frame index."""
    frames = []
    for number in range(count):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[: height // 2, : width // 2] = (230, 30, 30)
        pixels[: height // 2, width // 2 :] = (30, 200, 30)
        pixels[height // 2 :, : width // 2] = (30, 30, 210)
        pixels[height // 2 :, width // 2 :] = (120, 120, 120)
        pixels[:4, : 2 * number + 2] = 255
        frames.append(pixels)
    return frames


def write(
    path: Path, frames: Sequence[NDArray[np.uint8]], muxer: Mapping[str, str] | None = None
) -> Path:
    """Write a video in the codec of its suffix."""
    codec, pixel_format, options = (LOSSLESS | LOSSY)[path.suffix[1:]]
    container_format = {"m2ts": "mpegts", "m4v": "mp4"}.get(path.suffix[1:])
    with av.open(str(path), "w", format=container_format, options=dict(muxer or {})) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def rotate(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a matrix into an MP4's track header: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
