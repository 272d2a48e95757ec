"""Inputs of every form and their items: order, names, stems, counts, errors."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.errors import ImageError, UsageError
from runtime.sources import lists
from runtime.sources.items import Item
from runtime.sources.open import open_sources
from runtime.sources.photos import decode


def _make(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2, 3), number, np.uint8)).save(path)


def _stems(items: list[Item]) -> list[str]:
    return [item.stem for item in items]


def test_files_folders_and_globs_keep_their_order(tmp_path: Path) -> None:
    _make(tmp_path, "a/2.png", "a/1.JPG", "a/sub/9.png", "b/3.png", "b/4.png", "z.webp")
    (tmp_path / "a" / "notes.txt").write_text("1.JPG\n")
    (tmp_path / "a" / "clip.mp4").write_bytes(b"")
    (tmp_path / "a" / "folder.png").mkdir()
    inputs = [str(tmp_path / p) for p in ("z.webp", "a", "b/*.png", "**/9.*")]
    source = open_sources(inputs)
    items = list(source)
    assert _stems(items) == ["z", "1", "2", "3", "4", "9"]
    assert source.count == 6
    expected = [tmp_path / p for p in ("z.webp", "a/1.JPG", "a/2.png", "b/3.png", "b/4.png")]
    assert [item.photo for item in items] == [*expected, tmp_path / "a/sub/9.png"]
    assert [item.name for item in items] == [str(item.photo) for item in items]


def test_stems_are_unique_over_all_inputs(tmp_path: Path) -> None:
    _make(tmp_path, "x/a.png", "y/a.png", "z/A.png", "z/a-2.png")
    folders = [str(tmp_path / f) for f in "xyz"]
    assert _stems(list(open_sources(folders))) == ["a", "a-2", "A-3", "a-2-2"]
    source = open_sources(folders[:2])
    assert _stems(list(source)) == ["a", "a-2"]
    assert _stems(list(source)) == ["a", "a-2"]
    assert _stems(source.known()) == ["a", "a-2"]


def test_repeated_inputs_are_used_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, "a.png", "b.png", "c.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("b.png\nnone.png\n./none.png\n")
    repeats: list[str] = []
    source = open_sources(["b.png", "./a.png", "list.txt", "*.png"], on_repeat=repeats.append)
    assert [item.name for item in source] == ["b.png", "a.png", "none.png", "c.png"]
    assert source.count == 4
    assert repeats == ["b.png", "none.png", "a.png", "b.png"]
    repeats.clear()
    stdin = io.StringIO("a.png\nb.png\nc.png\na.png\nnone.png\nnone.png\n")
    source = open_sources(["b.png", "-", "c.png"], stdin=stdin, on_repeat=repeats.append)
    assert [item.name for item in source.known()] == ["b.png", "c.png"]
    assert [item.name for item in source] == ["b.png", "a.png", "none.png", "c.png"]
    assert repeats == ["b.png", "c.png", "a.png", "none.png"]


def test_a_pattern_without_a_suffix_takes_photos_and_videos(tmp_path: Path) -> None:
    _make(tmp_path, "a.png", "b.JPG", "c.webp")
    for name in ("notes.txt", "model.onnx", "README", "clip.mp4", "odd.dat"):
        (tmp_path / name).write_bytes(b"")
    pictures = ["a.png", "b.JPG", "c.webp"]
    for pattern, names in {
        "*": [*pictures, "clip.mp4"], "**": [*pictures, "clip.mp4"], "*.*": [*pictures, "clip.mp4"],
        "?.*[gG]": pictures[:2], "*.dat": ["odd.dat"], "c*": ["c.webp", "clip.mp4"],
    }.items():  # fmt: skip
        parts = open_sources([str(tmp_path / pattern)]).parts
        assert [Path(part.key).name for part in parts] == names, pattern
    with pytest.raises(UsageError, match="no photos found"):
        open_sources([str(tmp_path / "[nR]*")])


@pytest.mark.parametrize(
    "text", ["none.jpg", "*.jpg", "empty", "none.txt", "none.mp4", "", "a\0b", "a\0/*", "x" * 5000]
)
def test_an_input_without_photos(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no photos found"):
        open_sources([f"{tmp_path}/{text}" if text else ""])


@pytest.mark.parametrize("stride", [0, -1, "2", 1.5, True])
def test_a_stride_below_one(stride: Any, tmp_path: Path) -> None:
    _make(tmp_path, "a.png")
    with pytest.raises(UsageError, match="frame_stride: expected a whole number from 1"):
        open_sources([str(tmp_path / "a.png")], stride)


def test_photos_of_a_folder_are_opened_when_reached(tmp_path: Path) -> None:
    _make(tmp_path, "a.png", "b.png", "c.png")
    assert len(list(open_sources([str(tmp_path)], frame_stride=2))) == 3
    iterator = iter(open_sources([str(tmp_path)]))
    (tmp_path / "b.png").unlink()
    assert next(iterator).photo == tmp_path / "a.png"
    with pytest.raises(ImageError, match="no such file"):
        decode(next(iterator).photo)  # type: ignore[arg-type]
    _make(tmp_path, "a.gif")
    assert open_sources([str(tmp_path / "a.gif")]).count == 1


def test_special_files_are_items_that_cannot_be_decoded(tmp_path: Path) -> None:
    (tmp_path / "device.png").symlink_to("/dev/null")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "none.png")
    items = list(open_sources([str(tmp_path)]))
    assert _stems(items) == ["device", "nowhere"]
    for item, message in zip(items, ["a pipe or a device", "no such file"], strict=True):
        assert isinstance(item.photo, Path)
        with pytest.raises(ImageError, match=message):
            decode(item.photo)


def test_list_file(tmp_path: Path) -> None:
    _make(tmp_path, "in/a.png", "in/b c.png", "d.png", "in/#e.png")
    text = f"﻿\n# a comment\na.png\r\n  b c.png  \n\n{tmp_path / 'd.png'}\n./#e.png\nnone.png"
    (tmp_path / "in" / "list.TXT").write_bytes(text.encode())
    source = open_sources([str(tmp_path / "in" / "list.TXT")])
    assert source.count == 5
    items = list(source)
    assert [item.photo for item in items[:4]] == [
        tmp_path / p for p in ("in/a.png", "in/b c.png", "d.png", "in/#e.png")
    ]
    error = items[4].photo
    assert isinstance(error, ImageError)
    where = f"{tmp_path / 'in' / 'list.TXT'}:8: {tmp_path / 'in' / 'none.png'}"
    assert str(error) == f"{where}: no such file; check the path"
    assert items[4].name == str(tmp_path / "in" / "none.png")
    assert items[4].stem == "none"


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        _make(tmp_path, name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    items = list(open_sources([str(tmp_path / "list.txt")]))
    assert [item.photo for item in items] == [tmp_path / name]
    stdin = io.TextIOWrapper(io.BytesIO(os.fsencode(tmp_path) + b"/caf\xe9.png\n"), "utf-8")
    assert [i.photo for i in open_sources(["-"], stdin=stdin)] == [tmp_path / name]


def test_invalid_lists(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for data, message in [
        (b"", "an empty list"),
        (b"\n# nothing\n\n", "an empty list"),
        (b"a.png\n\0\0\n", ":2: not text"),
        (b"a.png\n" + b"x" * (lists._LONGEST_LINE + 1), ":2: longer than a path"),
    ]:
        with subtests.test(message):
            path = tmp_path / "list.txt"
            path.write_bytes(data)
            with pytest.raises(UsageError, match=message) as caught:
                open_sources([str(path)])
            assert str(caught.value).startswith(str(path))


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, "a.png", "b.png")
    monkeypatch.chdir(tmp_path)
    source = open_sources(["b.png", "-"], stdin=io.StringIO("a.png\n#\nnone.png\nb.png\n"))
    assert source.count is None
    items = list(source)
    assert _stems(items) == ["b", "a", "none"]
    assert str(items[2].photo) == "standard input:3: none.png: no such file; check the path"


def test_standard_input_is_read_as_it_arrives(tmp_path: Path) -> None:
    """An item is available before the next line is written to the pipe."""
    _make(tmp_path, "a.png", "b.png")
    read_end, write_end = os.pipe()
    with open(read_end, encoding="utf-8") as stdin, open(write_end, "wb", buffering=0) as writer:
        iterator = iter(open_sources(["-"], stdin=stdin))
        for name in ("a", "b"):
            writer.write(os.fsencode(tmp_path / f"{name}.png") + b"\n")
            assert next(iterator).stem == name
        writer.close()
        assert list(iterator) == []


def test_standard_input_once_and_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only once"):
        open_sources(["-", "-"])
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr("sys.stdin", stream)
        with pytest.raises(UsageError, match="standard input is closed; pipe a list"):
            open_sources(["-"])
    with pytest.raises(UsageError, match=r"cannot read the list \(Is a directory\)"):
        lists.read_list(tmp_path)
