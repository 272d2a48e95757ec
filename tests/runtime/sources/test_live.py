"""Cameras and network streams: names, how they open and how they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import ImageError
from runtime.sources import live
from runtime.sources.open import open_sources
from tests.runtime.sources import clips


def test_what_counts_as_live(subtests: pytest.Subtests) -> None:
    for source, expected in [
        ("camera:0", True),
        ("camera:/dev/video0", True),
        ("rtsp://host/stream", True),
        ("HTTPS://host/clip.mp4", True),
        ("photos/camera.jpg", False),
        ("file:///photo.jpg", False),
        ("concat:a|b", False),
        ("rtsp:/host", False),
    ]:
        with subtests.test(source=source):
            assert live.is_live(source) is expected


def test_devices(subtests: pytest.Subtests) -> None:
    for device, platform, expected in [
        ("0", "linux", ("/dev/video0", "v4l2")),
        ("/dev/video7", "linux", ("/dev/video7", "v4l2")),
        ("1", "darwin", ("1", "avfoundation")),
        ("Integrated Camera", "win32", ("video=Integrated Camera", "dshow")),
    ]:
        with subtests.test(device=device):
            assert live.camera_device(device, platform) == expected


def test_names_show_no_passwords(subtests: pytest.Subtests) -> None:
    for source, name, stem in [
        ("camera:0", "camera:0", "camera-0"),
        ("camera:/dev/video2", "camera:/dev/video2", "camera-video2"),
        ("rtsp://me:p@ss@host:554/a/b?key=1", "rtsp://host:554/a/b", "host-554-a-b"),
        ("http://host/clip.mp4", "http://host/clip.mp4", "host-clip.mp4"),
        ("rtsp://host", "rtsp://host", "host"),
    ]:
        with subtests.test(source=source):
            assert live.live_name(source) == name
            assert live.live_stem(source) == stem


def test_cameras_and_addresses_that_cannot_be_opened() -> None:
    items = list(open_sources(["camera:/dev/no-such-camera"]))
    assert [i.name for i in items] == ["camera:/dev/no-such-camera#000000"]
    assert isinstance(items[0].photo, ImageError)
    assert str(items[0].photo).startswith("camera:/dev/no-such-camera: cannot be opened (")
    inputs = ["http://127.0.0.1:1/x?a", "http://127.0.0.1:1/x?b", "http://127.0.0.1:1/x?a"]
    names = [item.name for item in open_sources(inputs)]
    assert names == ["http://127.0.0.1:1/x#000000", "http://127.0.0.1:1/x (127.0.0.1-1-x-2)#000000"]


def _play(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[Any]:
    """Play a file as the camera; returns the arguments of every open."""
    opened: list[Any] = []
    real = clips.av.open

    def fake(file: str, **options: Any) -> Any:
        opened.append((file, options.get("format")))
        return real(str(path))

    monkeypatch.setattr(clips.av, "open", fake)
    monkeypatch.setattr(live.sys, "platform", "linux")
    return opened


def test_frames_of_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = clips.pictures(5)
    opened = _play(monkeypatch, clips.write(tmp_path / "clip.mkv", written))
    source = open_sources(["camera:0"], frame_stride=2)
    assert source.count is None
    items = list(source)
    assert opened == [("/dev/video0", "v4l2")]
    assert [i.name for i in items] == [f"camera:0#{n:06d}" for n in (0, 2, 4)]
    assert [i.stem for i in items] == [f"camera-0-{n:06d}" for n in (0, 2, 4)]
    for item, number in zip(items, (0, 2, 4), strict=True):
        np.testing.assert_array_equal(item.photo, written[number])


def test_corrupt_frames_of_a_camera_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), np.uint8)
    path = clips.write(tmp_path / "clip.mpg", list(noise))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1500] = bytes(1500)
    path.write_bytes(data)
    with clips.av.open(str(path)) as container:
        marks = [frame.is_corrupt for frame in container.decode(video=0)]
    assert any(marks)
    _play(monkeypatch, path)
    items = list(open_sources(["camera:0"]))
    numbers = [n for n, is_corrupt in enumerate(marks) if not is_corrupt]
    assert [i.name for i in items] == [f"camera:0#{n:06d}" for n in numbers]
    assert all(isinstance(i.photo, np.ndarray) for i in items)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_frames_over_http(tmp_path: Path) -> None:
    written = clips.pictures(3)
    clips.write(tmp_path / "clip.mkv", written)
    with _served(tmp_path) as address:
        items = list(open_sources([f"{address}/clip.mkv"]))
        missing = list(open_sources([f"{address}/none.mkv"]))
    for item, expected in zip(items, written, strict=True):
        np.testing.assert_array_equal(item.photo, expected)
        assert "secret" not in item.name + item.stem
    assert len(missing) == 1
    assert "cannot be opened" in str(missing[0].photo)
    assert "secret" not in str(missing[0].photo)


def test_a_playlist_from_the_network_opens_no_local_file(tmp_path: Path) -> None:
    secret = clips.write(tmp_path / "secret.ts", clips.pictures(3))
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-MEDIA-SEQUENCE:0\n"
        f"#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    )
    with _served(tmp_path) as address:
        items = list(open_sources([f"{address}/list.m3u8"]))
    assert [isinstance(i.photo, ImageError) for i in items] == [True]
