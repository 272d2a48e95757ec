"""Photos are found by the paths that tools write."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import UsageError
from runtime.annotations.coco_file import ImageEntry
from runtime.annotations.photo_files import PhotoFiles, find_files

LABELS = Path("labels.json")


def _find(folder: Path, *names: str) -> PhotoFiles:
    return find_files(LABELS, [ImageEntry(n, name, None) for n, name in enumerate(names)], folder)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


# The path in the file, and the file that it means.
PATHS = [
    ("1.jpg", "1.jpg"),
    ("./1.jpg", "1.jpg"),
    ("a/1.jpg", "a/1.jpg"),
    ("/data/upload/1/1.jpg", "1.jpg"),
    ("../images/1.jpg", "1.jpg"),
    ("x/y/a/1.jpg", "a/1.jpg"),
    ("a\\1.jpg", "a/1.jpg"),
    ("C:\\photos\\a\\1.jpg", "a/1.jpg"),
    ("https://host/photos/1.jpg?version=2", "1.jpg"),
    ("s3://bucket/a/1.jpg", "a/1.jpg"),
    ("my%20photo%C3%A9.jpg", "my photo\u00e9.jpg"),
    ("http://host/my%20photo%C3%A9.jpg", "my photo\u00e9.jpg"),
    ("my photoe\u0301.jpg", "my photo\u00e9.jpg"),
    ("/data/upload/3/0a1b2c3d-1.jpg", "1.jpg"),
    ("0a1b2c3d-1.jpg", "1.jpg"),
    ("/data/local-files/?d=sets/a/1.jpg", "a/1.jpg"),
    ("100%.jpg", "100%.jpg"),
    ("q?d=1.jpg", "q?d=1.jpg"),
]


def test_paths(tmp_path: Path, subtests: pytest.Subtests) -> None:
    _touch(tmp_path, *(file for _, file in PATHS))
    for name, file in PATHS:
        with subtests.test(name):
            found = _find(tmp_path, name)
            assert found.photos == {0: tmp_path / file}
            is_there = name.removeprefix("./") == file
            assert len(found.notices) == (not is_there)


def test_missing_photos_are_counted(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.jpg", "b/1.jpg", "2.jpg")
    names = ["a/1.jpg", "b/1.jpg", "/data/2.jpg", "none.jpg", "x" * 300, "\0", "", "/", "d/" * 9999]
    found = _find(tmp_path, *names)
    files = {0: "a/1.jpg", 1: "b/1.jpg", 2: "2.jpg"}
    assert found.photos == {image_id: tmp_path / file for image_id, file in files.items()}
    assert found.notices[0] == f"6 of 9 labeled photos are not in {tmp_path}; skipped"
    assert found.notices[1].startswith(
        "1 of 3 photos are not at the file's paths but were found by"
    )


def test_absolute_paths_mean_photos_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "smaller"
    _touch(tmp_path, "original/1.jpg", "original/2.jpg", "smaller/1.jpg")
    found = _find(folder, *(str(tmp_path / "original" / name) for name in ("1.jpg", "2.jpg")))
    assert found.photos == {0: folder / "1.jpg"}
    assert found.notices[0] == f"1 of 2 labeled photos are not in {folder}; skipped"


def test_one_photo_of_several_images_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "1.jpg", "2.jpg")
    for names in [("a/1.jpg", "b/1.jpg"), ("1.jpg", "1.jpg"), ("1.jpg", "./1.jpg")]:
        with pytest.raises(UsageError, match=r"2 images are named 1\.jpg \(ids 0, 1; 1 such"):
            _find(tmp_path, *names, "2.jpg")
    with pytest.raises(UsageError, match=r"none of the 1 labeled photos of labels\.json"):
        _find(tmp_path, "3.jpg")
    for path in ("none", "*.jpg", "1.jpg"):
        with pytest.raises(UsageError, match="no such folder; expected the folder of the labeled"):
            _find(tmp_path / path, "1.jpg")
