"""COCO annotations: which files are accepted, and how photos and objects are checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.errors import UsageError
from model.spec import ModelSpec
from runtime.compare.coco_annotations import (
    CocoAnnotations,
    labeled_photos,
    read_annotations,
    require_objects,
)
from runtime.sessions.open import open_session

mask = pytest.importorskip("pycocotools.mask")

IMAGE = {"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}
CATEGORY = {"id": 1}
OUTLINE = [[0, 0, 4, 0, 4, 4]]
OBJECT = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1.0}


@pytest.fixture
def spec(demo_onnx: Path) -> ModelSpec:
    return open_session(demo_onnx).artifact.spec


def _read(document: object, folder: Path) -> CocoAnnotations:
    path = folder / "labels.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_annotations(path)


def _document(*objects: Any, images: Any = (IMAGE,), categories: Any = (CATEGORY,)) -> Any:
    return {"images": [*images], "annotations": [*objects], "categories": [*categories]}


def test_invalid_files_are_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for document in [
        "not json",
        [],
        {"images": [IMAGE], "annotations": [OBJECT]},
        _document(images=[{"id": 1}]),
        _document(images=[{**IMAGE, "id": True}]),
        _document(images=[{**IMAGE, "id": [1]}]),
        _document({"bbox": []}),
        _document({**OBJECT, "image_id": None}),
        _document(1),
        _document(categories=[{"name": "cat"}]),
    ]:
        with subtests.test(document=document), pytest.raises(UsageError, match=r"labels\.json"):
            _read(document, tmp_path)


def test_ids_may_be_strings_and_iscrowd_may_be_missing(spec: ModelSpec, tmp_path: Path) -> None:
    label = {**OBJECT, "image_id": "first", "segmentation": OUTLINE}
    annotations = _read(_document(label, images=[{**IMAGE, "id": "first"}]), tmp_path)
    require_objects(annotations, ["first"], spec)
    assert annotations.document["annotations"][0]["iscrowd"] == 0


def test_photos_are_matched_by_path_then_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/1.jpg", "b/1.jpg", "2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ["a/1.jpg", "b/1.jpg", "/data/2.jpg", "none.jpg", "x" * 300, "\0"]
    images = [{**IMAGE, "id": name, "file_name": name} for name in names]
    annotations = _read(_document(images=images), tmp_path)
    expected = {"a/1.jpg": "a/1.jpg", "b/1.jpg": "b/1.jpg", "/data/2.jpg": "2.jpg"}
    photos = labeled_photos(annotations, tmp_path)
    assert photos == {name: tmp_path / file for name, file in expected.items()}
    assert "3 of 6 labeled photos are not in" in capsys.readouterr().out
    (tmp_path / "b/1.jpg").unlink()
    (tmp_path / "1.jpg").touch()
    with pytest.raises(UsageError, match=r"2 images are named 1\.jpg"):
        labeled_photos(annotations, tmp_path)


WRONG_OBJECTS: list[tuple[dict[str, object], str]] = [
    ({"bbox": ["a", "b", "c", "d"]}, "bbox: expected four numbers"),
    ({"bbox": [1]}, "bbox: expected four numbers"),
    ({"bbox": None}, "bbox: expected four numbers"),
    ({"bbox": [0, 0, float("nan"), 1]}, "bbox: expected four numbers"),
    ({"bbox": [0, 0, 10**400, 1]}, "bbox: expected four numbers"),
    ({"area": float("nan")}, "area: expected a number"),
    ({"area": -1}, "area: expected a number"),
    ({"area": "1"}, "area: expected a number"),
    ({"iscrowd": "no"}, "iscrowd: expected 0 or 1"),
    ({"segmentation": [[1, 2]]}, "segmentation: expected polygons"),
    ({"segmentation": [[1, 2, 3, 4]]}, "segmentation: expected polygons"),
    ({"segmentation": [["a"] * 6]}, "segmentation: expected polygons"),
    ({"segmentation": [[0, 0, 1e6 + 1, 0, 4, 4]]}, "segmentation: expected polygons"),
    ({"segmentation": [[0, 0, 4, 0, 4, 4], []]}, "segmentation: expected polygons"),
    ({"segmentation": "abc"}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [1, 2]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [1, 2], "size": [4, 5]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [20], "size": [5, 4]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": "3", "size": [4, 5]}}, "segmentation: expected polygons"),
    ({"segmentation": []}, "1 of 1 objects have no segmentation"),
    ({"category_id": 77}, "no objects on any of the 1 photos"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_OBJECTS, ids=str)
def test_objects_that_pycocotools_cannot_process_are_refused(
    wrong: dict[str, object], message: str, spec: ModelSpec, tmp_path: Path
) -> None:
    label = {**OBJECT, "id": 5, "segmentation": OUTLINE, **wrong}
    with pytest.raises(UsageError, match=rf"labels\.json: .*{message}"):
        require_objects(_read(_document(label), tmp_path), [1], spec)
    # Objects on other images are not checked.
    sound = {**OBJECT, "segmentation": OUTLINE}
    annotations = _read(_document({**label, "image_id": 99}, sound), tmp_path)
    require_objects(annotations, [1], spec)


@pytest.mark.parametrize(
    "outline",
    [
        [[0, 0, 4, 0, 4, 4]],
        [[0, 0, 4, 0, 4, 4], [1, 1, 2, 2]],
        [[0, 0, 4, 0, 4, 4, 1]],
        {"counts": [3, 17], "size": [4, 5]},
        {"counts": "3a0", "size": [4, 5]},
    ],
    ids=str,
)
def test_outlines_that_pycocotools_processes(outline: Any, spec: ModelSpec, tmp_path: Path) -> None:
    label = {**OBJECT, "segmentation": outline}
    require_objects(_read(_document(label), tmp_path), [1], spec)
    runs = mask.frPyObjects(outline, 4, 5) if isinstance(outline, list) else [outline]
    assert len(runs) == (len(outline) if isinstance(outline, list) else 1)


def test_only_masks_need_outlines_and_sizes(spec: ModelSpec, tmp_path: Path) -> None:
    unsized = {"id": 1, "file_name": "a.jpg"}
    wrong = _read(_document({**OBJECT, "segmentation": "abc"}, images=[unsized]), tmp_path)
    require_objects(wrong, [1], replace(spec, mask=None))
    label = {**OBJECT, "segmentation": OUTLINE}
    with pytest.raises(UsageError, match="expected height and width of image 1"):
        require_objects(_read(_document(label, images=[unsized]), tmp_path), [1], spec)
