"""Videos: exact frames, upright, and the intact frames of damaged files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import ImageError, MissingDependencyError
from runtime.sources import decoded, video
from runtime.sources.items import Item
from runtime.sources.open import open_sources
from tests.runtime.raising import raising
from tests.runtime.sources import clips


def _items(path: Path, stride: int = 1) -> list[Item]:
    return list(open_sources([str(path)], stride))


def _split(items: list[Item]) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Frames, and the messages of errors; all frames come before them."""
    errors = [str(item.photo) for item in items if isinstance(item.photo, ImageError)]
    frames = [item.photo for item in items if isinstance(item.photo, np.ndarray)]
    assert len(errors) + len(frames) == len(items)
    assert all(isinstance(item.photo, np.ndarray) for item in items[: len(frames)])
    return frames, errors


def _open_files() -> set[str]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc to see open files")
    return {os.readlink(fd) for fd in folder.iterdir() if fd.is_symlink()}


@pytest.mark.parametrize("suffix", clips.LOSSLESS)
def test_frames_are_those_that_were_written(tmp_path: Path, suffix: str) -> None:
    written = clips.pictures(7)
    path = clips.write(tmp_path / f"clip.{suffix}", written)
    items = _items(path)
    frames, errors = _split(items)
    assert errors == []
    assert [item.name for item in items] == [f"{path}#{n:06d}" for n in range(7)]
    assert [item.stem for item in items] == [f"clip-{n:06d}" for n in range(7)]
    for frame, expected in zip(frames, written, strict=True):
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("suffix", clips.LOSSY)
def test_other_containers(tmp_path: Path, suffix: str) -> None:
    written = clips.pictures(7)
    frames, errors = _split(_items(clips.write(tmp_path / f"clip.{suffix}", written)))
    assert errors == []
    assert len(frames) == 7
    for frame, expected in zip(frames, written, strict=True):
        # Chroma has half the resolution: the borders between quarters differ.
        assert np.abs(frame[8:12, 4:16].astype(int) - expected[8:12, 4:16]).max() <= 16


@pytest.mark.parametrize(
    ("stride", "numbers"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (9, [0])]
)
def test_every_nth_frame_keeps_its_number(tmp_path: Path, stride: int, numbers: list[int]) -> None:
    written = clips.pictures(7)
    path = clips.write(tmp_path / "clip.mkv", written)
    items = _items(path, stride)
    assert [item.stem for item in items] == [f"clip-{n:06d}" for n in numbers]
    for item, number in zip(items, numbers, strict=True):
        np.testing.assert_array_equal(item.photo, written[number])


MATRICES = {
    "none": ((1, 0, 0, 1), lambda p: p),
    "right": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "half": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "left": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside-down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "other-diagonal": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
    "no-matrix-at-all": ((0, 0, 0, 0), lambda p: p),
}


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_upright(tmp_path: Path, name: str) -> None:
    matrix, rotate = MATRICES[name]
    written = clips.pictures(2)
    path = clips.write(tmp_path / "clip.mp4", written)
    clips.rotate(path, *matrix)
    frames, errors = _split(_items(path))
    assert errors == []
    for frame, expected in zip(frames, written, strict=True):
        np.testing.assert_array_equal(frame, rotate(expected))
        assert frame.flags.c_contiguous


def _cut(path: Path, fraction: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])


@pytest.mark.parametrize(
    ("suffix", "muxer"), [("mp4", {"movflags": "faststart"}), ("mkv", {}), ("avi", {})]
)
@pytest.mark.parametrize("fraction", [0.5, 0.7, 0.9])
def test_cut_video_gives_its_good_frames_and_one_error(
    tmp_path: Path, suffix: str, muxer: dict[str, str], fraction: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), np.uint8)
    path = clips.write(tmp_path / f"clip.{suffix}", list(noise), muxer)
    _cut(path, fraction)
    items = _items(path)
    frames, errors = _split(items)
    for frame, expected in zip(frames, noise, strict=False):
        np.testing.assert_array_equal(frame, expected)
    assert 20 * fraction - 4 <= len(frames) < 20
    assert len(errors) == 1
    assert errors[0].startswith(f"{path}: frame {len(frames)}: damaged or truncated video (")
    assert items[-1].name == f"{path}#{len(frames):06d}"


def _damaged_inside(path: Path) -> tuple[Path, NDArray[np.uint8]]:
    """Twenty frames of noise, and their file with one of them damaged."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), np.uint8)
    clips.write(path, list(noise))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    return path, noise


@pytest.mark.parametrize("suffix", ["mov", "avi"])
def test_damage_inside_ends_a_video_with_one_error(tmp_path: Path, suffix: str) -> None:
    path, noise = _damaged_inside(tmp_path / f"clip.{suffix}")
    frames, errors = _split(_items(path))
    assert 5 < len(frames) < 15
    for frame, expected in zip(frames, noise, strict=False):
        np.testing.assert_array_equal(frame, expected)
    assert [e.startswith(f"{path}: frame {len(frames)}: damaged") for e in errors] == [True]


@pytest.mark.parametrize("suffix", ["mov", "avi"])
def test_damage_inside_does_not_end_a_live_stream(tmp_path: Path, suffix: str) -> None:
    path, noise = _damaged_inside(tmp_path / f"clip.{suffix}")
    results = list(video.live_frames(lambda av: av.open(str(path)), "camera", 1))
    frames = [frame for _, frame in results if isinstance(frame, np.ndarray)]
    assert len(results) == len(frames)
    assert 17 <= len(frames) < 20
    np.testing.assert_array_equal(frames[-1], noise[-1])


def test_a_decoder_that_does_not_work_ends_a_live_stream() -> None:
    def decode() -> list[object]:
        raise clips.av.error.ArgumentError(22, "Invalid argument")

    context = SimpleNamespace(width=4, height=2, options={})
    streams = SimpleNamespace(video=[SimpleNamespace(codec_context=context)])
    packets = [SimpleNamespace(decode=decode)] * 9
    camera = SimpleNamespace(streams=streams, demux=lambda _: iter(packets))
    ((number, error),) = video.live_frames(lambda _: nullcontext(camera), "camera", 1)
    assert (number, str(error)) == (0, "camera: frame 0: broke off (Invalid argument)")


def test_concealed_errors_count_as_damage(tmp_path: Path) -> None:
    """An H.264 decoder conceals damage with earlier pixels and marks the frame."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), np.uint8)
    path = clips.write(tmp_path / "clip.ts", list(noise))
    data = bytearray(path.read_bytes())
    # What decoders notice hangs on the stream, which the encoder does not write alike each time:
    # all packets of the second half, but for those in which a frame begins.
    for start in range(len(data) // 188 // 2 * 188, len(data), 188):
        if not data[start + 1] & 0x40:
            damaged = slice(start + 20, start + 180)
            data[damaged] = bytes(byte ^ 0xFF for byte in data[damaged])
    path.write_bytes(data)
    frames, errors = _split(_items(path))
    assert len(errors) == 1
    assert len(frames) < 12


def test_files_that_are_not_videos(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for data, message in [
        (b"", "unknown video format, or damaged"),
        (b"words\n" * 99, "unknown video format, or damaged"),
    ]:
        with subtests.test(message):
            path = tmp_path / "clip.mp4"
            path.write_bytes(data)
            frames, errors = _split(_items(path))
            assert frames == []
            assert len(errors) == 1
            assert errors[0].startswith(f"{path}: ")
            assert message in errors[0]


def test_only_listed_formats_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list that FFmpeg gets has containers and bare streams, and no format of playlists."""
    path = clips.write(tmp_path / "clip.mkv", clips.pictures(1))
    options: dict[str, str] = {}
    opened = clips.av.open

    def spy(file: object, **named: Any) -> Any:
        options.update(named["options"])
        return opened(file, **named)

    monkeypatch.setattr(clips.av, "open", spy)
    assert _split(_items(path))[1] == []
    formats = set(options["format_whitelist"].split(","))
    assert {"mp4", "matroska", "avi", "mpegts"} <= formats
    assert not formats & {"concat", "hls", "dash", "image2", "imf"}


def test_titles_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with clips.av.open(str(path), "w") as container:
        container.metadata["title"] = "a title"
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "bgr0"
        frame = clips.av.VideoFrame.from_ndarray(clips.pictures(1)[0], format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    data = path.read_bytes()
    assert b"a title" in data
    path.write_bytes(data.replace(b"a title", b"caf\xe9 no"))
    frames, errors = _split(_items(path))
    assert errors == []
    np.testing.assert_array_equal(frames[0], clips.pictures(1)[0])


def test_videos_without_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with clips.av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = clips.av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    without = "expected a file with a video stream, got one without"
    assert _split(_items(path)) == ([], [f"{path}: {without}"])
    path = clips.write(tmp_path / "clip.ts", clips.pictures(3))
    path.write_bytes(path.read_bytes()[: 188 * 4])
    frames, errors = _split(_items(path))
    assert frames == []
    assert len(errors) == 1


def test_special_files_with_a_video_suffix(tmp_path: Path) -> None:
    (tmp_path / "device.mp4").symlink_to("/dev/null")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "nowhere.mp4").symlink_to(tmp_path / "none.mp4")
    assert _split(_items(tmp_path / "device.mp4"))[1] == [
        f"{tmp_path / 'device.mp4'}: a pipe or a device; expected a video file"
    ]
    assert _split(_items(tmp_path / "nowhere.mp4"))[1] == [
        f"{tmp_path / 'nowhere.mp4'}: no such file; check the path"
    ]


@pytest.mark.parametrize("limit", [32 * 48 - 1, 32 * 48])
def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = clips.write(tmp_path / "clip.mkv", clips.pictures(2))
    monkeypatch.setattr(decoded, "MAX_PIXELS", limit)
    frames, errors = _split(_items(path))
    if limit < 32 * 48:
        assert (frames, errors) == (
            [],
            [f"{path}: 48x32 is more than {limit} pixels; scale it down"],
        )
    else:
        assert (len(frames), errors) == (2, [])


@pytest.mark.parametrize("suffix", clips.LOSSLESS)
def test_decoders_have_the_size_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Before they allocate memory."""
    path = clips.write(tmp_path / f"clip.{suffix}", clips.pictures(2))
    monkeypatch.setitem(video.LIMITS, "max_pixels", "500")
    frames, errors = _split(_items(path))
    assert frames == []
    assert len(errors) == 1


def test_files_are_closed(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.mkv", clips.pictures(5))
    source = open_sources([str(path)])
    assert str(path) not in _open_files()
    iterator: Any = iter(source)
    next(iterator)
    assert str(path) in _open_files()
    iterator.close()
    assert str(path) not in _open_files()
    assert len(list(source)) == 5
    assert str(path) not in _open_files()


def test_a_source_of_videos_can_be_read_again(tmp_path: Path) -> None:
    source = open_sources([str(clips.write(tmp_path / "clip.mkv", clips.pictures(3)))])
    assert source.count is None
    assert [i.stem for i in source] == [i.stem for i in source]
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    good = clips.write(tmp_path / "good.mkv", clips.pictures(2))
    frames = [i.photo for i in open_sources([str(bad), str(good)])]
    assert [type(f) for f in frames] == [ImageError, np.ndarray, np.ndarray]


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write(tmp_path / "clip.mkv", clips.pictures(1))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[video\]'"):
        open_sources([str(path)])
    with pytest.raises(MissingDependencyError, match="cameras"):
        open_sources(["camera:0"])


def _frames_of(container: object) -> list[tuple[int, Any]]:
    @contextmanager
    def opened(_: object) -> Iterator[object]:
        yield container

    return list(video._frames(opened, "clip.mp4", 1, is_live=False))


def _stream_of(context: object) -> SimpleNamespace:
    return SimpleNamespace(codec_context=context)


def test_videos_that_need_a_broken_decoder() -> None:
    context = SimpleNamespace(width=4, height=2, options={})
    unknown = SimpleNamespace(streams=SimpleNamespace(video=[_stream_of(None)]))
    streams = SimpleNamespace(video=[_stream_of(context)])
    empty = SimpleNamespace(streams=streams, demux=lambda _: iter(()))
    large = SimpleNamespace(streams=streams, demux=raising(MemoryError()))
    messages = [str(error) for one in (unknown, empty, large) for _, error in _frames_of(one)]
    assert messages == [
        "clip.mp4: this build of PyAV cannot decode the video; convert it, say to H.264",
        "clip.mp4: expected a video, got no frame",
        "clip.mp4: frame 0: larger than the memory; scale the video down",
    ]
