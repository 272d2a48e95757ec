"""Annotations of evaluation photos: what is taken, and what is refused before the long part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask

from calib.evaluation.annotations import read_annotations, require_truth
from calib.quantize import main
from model.errors import UsageError
from runtime.sessions.open import open_session

IMAGE = {"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}
ROW = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1.0}
KIND = {"id": 1}
OUTLINE = [[0, 0, 4, 0, 4, 4]]


@pytest.mark.parametrize(
    "document",
    [
        "not json",
        [],
        {"images": [IMAGE], "annotations": [ROW]},
        {"images": [{**IMAGE, "id": "7"}], "annotations": [], "categories": []},
        {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []},
        {"images": [IMAGE], "annotations": [{"bbox": []}], "categories": []},
        {"images": [IMAGE, {**IMAGE, "id": 2}], "annotations": [], "categories": []},
    ],
)
def test_annotations_that_are_none(document: object, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(UsageError, match=r"--annotations .*labels\.json"):
        read_annotations(path)


WRONG_OBJECTS: list[tuple[dict[str, object], str]] = [
    ({"bbox": ["a", "b", "c", "d"]}, "bbox: expected four numbers"),
    ({"bbox": [1]}, "bbox: expected four numbers"),
    ({"bbox": [0, 0, float("nan"), 1]}, "bbox: expected four numbers"),
    ({"bbox": [0, 0, 10**400, 1]}, "bbox: expected four numbers"),
    ({"area": float("nan")}, "area: expected a number"),
    ({"area": -1}, "area: expected a number"),
    ({"segmentation": [[1, 2]]}, "segmentation: expected polygons"),
    ({"segmentation": [[1, 2, 3, 4]]}, "segmentation: expected polygons"),
    ({"segmentation": [["a"] * 6]}, "segmentation: expected polygons"),
    ({"segmentation": [[0, 0, 1e300, 0, 4, 4]]}, "segmentation: expected polygons"),
    ({"segmentation": [[0, 0, 4, 0, 4, 4], []]}, "segmentation: expected polygons"),
    ({"segmentation": "abc"}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [1, 2]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [1, 2], "size": [4, 5]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [20], "size": [5, 4]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": "zz~~~", "size": [4, 5]}}, "segmentation: expected polygons"),
    ({"segmentation": []}, "1 of 1 objects have no segmentation"),
    ({"category_id": 77}, "no object on any of the 1 photos"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG_OBJECTS, ids=str)
def test_objects_that_pycocotools_cannot_take(
    wrong: dict[str, object], said: str, demo_onnx: Path, tmp_path: Path
) -> None:
    truth = _read({**ROW, "id": 5, "segmentation": OUTLINE, **wrong}, tmp_path)
    spec = open_session(demo_onnx).artifact.spec
    with pytest.raises(UsageError, match=f"--annotations: .*{said}"):
        require_truth([Path("a.jpg")], truth, spec)
    # What no photo shows, and outlines of a model without masks, are not looked at.
    elsewhere = {**truth, "annotations": [*truth["annotations"], {**ROW, "segmentation": OUTLINE}]}
    elsewhere["annotations"][0]["image_id"] = 99
    require_truth([Path("a.jpg")], elsewhere, spec)


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
def test_outlines_that_it_can(outline: Any, demo_onnx: Path, tmp_path: Path) -> None:
    truth = _read({**ROW, "segmentation": outline}, tmp_path)
    require_truth([Path("a.jpg")], truth, open_session(demo_onnx).artifact.spec)
    runs = mask.frPyObjects(outline, 4, 5) if isinstance(outline, list) else [outline]
    assert len(runs) == (len(outline) if isinstance(outline, list) else 1)


def test_outlines_of_a_model_without_masks_are_not_looked_at(
    demo_onnx: Path, tmp_path: Path
) -> None:
    spec = replace(open_session(demo_onnx).artifact.spec, mask=None)
    require_truth([Path("a.jpg")], _read({**ROW, "segmentation": "abc"}, tmp_path), spec)


def _read(row: dict[str, Any], folder: Path) -> Mapping[str, Any]:
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": [IMAGE], "annotations": [row], "categories": [KIND]}))
    return read_annotations(path)


def test_annotations_that_are_a_list_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": [IMAGE], "annotations": [1], "categories": [KIND]}))
    with pytest.raises(UsageError, match="expected COCO annotations"):
        read_annotations(path)


def test_annotations_of_other_sizes_or_classes_are_refused_before_the_long_part(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "a.json", str(scenes[0].parent)
    argv = [str(demo_onnx), folder, "-o", str(tmp_path / "q.onnx"), "--eval-images", folder]
    argv += ["--annotations", str(file)]
    document = _annotated(sorted(scenes), segmentation=[[4, 4, 9, 4, 9, 9]])
    turned = [{**image, "height": 320, "width": 240} for image in document["images"]]
    file.write_text(json.dumps({**document, "images": turned}))
    said = _complaint(argv, capsys)
    assert "0.png is 240 x 320, annotated as 320 x 240 (height x width); its EXIF" in said
    smaller = [{**image, "height": 120} for image in document["images"]]
    file.write_text(json.dumps({**document, "images": smaller}))
    assert "give the photos that were annotated" in _complaint(argv, capsys)
    other = [{**one, "category_id": 500} for one in document["annotations"]]
    file.write_text(json.dumps({**document, "annotations": other, "categories": [{"id": 500}]}))
    assert "none of its category ids [500] is one that the model" in _complaint(argv, capsys)
    assert sorted(tmp_path.iterdir()) == [file]


def _complaint(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    status = main(argv)
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    return f"{status} {line}"


def _annotated(photos: list[Path], **fields: object) -> dict[str, Any]:
    """Annotations with one object on the first photo."""
    images = [
        {"id": i, "file_name": photo.name, "height": 240, "width": 320}
        for i, photo in enumerate(photos)
    ]
    one = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [4, 4, 9, 9], "area": 81, **fields}
    return {"images": images, "annotations": [one], "categories": [{"id": 1}]}


def test_annotations_without_outlines_or_objects_are_refused_before_the_long_part(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, file = _annotated(sorted(scenes)), tmp_path / "a.json"
    output = tmp_path / "q.onnx"
    argv = [str(demo_onnx), str(scenes[0].parent), "-o", str(output)]
    argv += ["--eval-images", str(scenes[0].parent), "--annotations", str(file)]
    file.write_text(json.dumps(document))
    assert "2 error: --annotations: 1 of 1 objects have no segmentation" in _complaint(argv, capsys)
    file.write_text(json.dumps({**document, "annotations": []}))
    assert "2 error: --annotations: no object on any of the" in _complaint(argv, capsys)
    assert sorted(tmp_path.iterdir()) == [file]


def test_annotations_need_not_say_that_an_object_is_no_crowd(
    scenes: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(_annotated(scenes, segmentation=[[4, 4, 9, 4, 9, 9]])))
    (one,) = read_annotations(file)["annotations"]
    assert one["iscrowd"] == 0
