"""`maskport predict` never writes over what it reads, however that is named."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import ImageError, UsageError
from runtime.cli.overwrite_guard import OverwriteGuard
from runtime.predict import main
from runtime.sources.items import Item
from runtime.sources.open import open_sources


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: two photos in `d`, another `a` elsewhere."""
    rng = np.random.default_rng(0)
    for name in ("d/q.png", "d/r.jpg", "e/q.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "d"


def call(model: Path, *arguments: str) -> int:
    return main([str(model), "--threads", "1", *arguments])


def test_a_photo_that_standard_input_names_stays(
    tiny_onnx: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (photos / "q.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.StringIO("d/q.png\nd/r.jpg\n"))
    assert call(tiny_onnx, "-", "-o", "d") == 1
    assert (photos / "q.png").read_bytes() == before
    assert (photos / "r.png").exists()
    errors = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error: ")]
    assert errors == [
        "error: d/q.png: d/q.png would overwrite an input; name another folder with -o",
        "error: 1 of 2 photos could not be used",
    ]


def test_photos_beside_a_video_stay(tiny_onnx: Path, photos: Path) -> None:
    from tests.runtime.sources import clips

    before = (photos / "q.png").read_bytes()
    clips.write(photos / "clip.mkv", clips.pictures(2))
    assert call(tiny_onnx, "d/q.png", "d/clip.mkv", "-o", "d") == 2
    assert (photos / "q.png").read_bytes() == before
    assert not (photos / "results.json").exists()


def refused(places: Sequence[str], folder: str, kinds: Sequence[str]) -> str:
    known = open_sources(places, stdin=io.StringIO()).known()
    with pytest.raises(UsageError) as caught:
        OverwriteGuard(places, known, Path(folder), kinds).require_safe(known)
    return str(caught.value)


def test_every_way_to_name_a_file_is_recognized(photos: Path) -> None:
    (photos.parent / "link").symlink_to(photos)
    for folder in ("d", "./d", "e/../d", "link", str(photos)):
        assert "q.png would overwrite" in refused(["d/q.png"], folder, ["overlay"])
    # Another photo of that stem comes first and takes the name.
    assert "q.png would overwrite" in refused(["e/q.png", "d/r.jpg", "d/q.png"], "d", ["overlay"])
    assert "q.png would overwrite" in refused(["-", "d/q.png"], "d", ["overlay"])


def test_every_format_is_checked(photos: Path) -> None:
    cutout = photos / "crops" / "000-dog" / "000-dog.png"
    frame = photos / "labelme" / "f.png"
    for path in (cutout, frame):
        path.parent.mkdir(parents=True)
        shutil.copy(photos / "q.png", path)
    (photos / "classes.txt").write_text("q.png\n")
    assert "000-dog would overwrite" in refused([str(cutout)], "d", ["crops"])
    assert "f.png would overwrite" in refused([str(frame)], "d", ["labelme"])
    assert "classes.txt would overwrite" in refused(["d/classes.txt"], "d", ["yolo"])


def test_only_written_files_are_protected(photos: Path) -> None:
    places = ["d", "e"]
    known = open_sources(places).known()
    OverwriteGuard(places, known, photos, ["json", "crops", "yolo"]).require_safe(known)
    OverwriteGuard(places, known, photos / "out", ["overlay"]).require_safe(known)


def test_a_frame_must_not_replace_a_photo_that_came_before(photos: Path) -> None:
    photo = Item("d/q.png", "q", photos / "q.png")
    guard = OverwriteGuard([], [], photos, ["overlay"])
    frame = Item("clip.mp4#000000", "q", np.zeros((2, 2, 3), np.uint8))
    assert guard.checked(frame) is frame
    assert isinstance(guard.checked(photo).photo, ImageError)
    assert isinstance(guard.checked(frame).photo, ImageError)
